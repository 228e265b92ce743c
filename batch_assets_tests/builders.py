"""What tests build before they can begin: models small enough to make on the spot, offline."""

import importlib.util
import json
from pathlib import Path

from batch_assets_tests.module_imports import REPOSITORY

WORDS = """
    a the of to and in is that for with as on by this from file data text read write open close compress
    sort list string number value key name path time error return when where how what why many few record
    shard model vector token batch query search index result count sum mean norm zero one two three
""".split()


def make_tokenizer(folder: Path, *, max_tokens: int = 64, kind: str = "bert") -> None:
    """Save a tokenizer of some hundred tokens: `bert` (WordPiece), or `gpt` (bytes, no padding token)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    if kind == "gpt":
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: number for number, token in enumerate(["<|end|>", *letters])}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        saved = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|end|>", model_max_length=max_tokens
        )
    else:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
        pieces = [
            *special,
            *letters,
            *(f"##{letter}" for letter in letters),
            *(w for w in WORDS if len(w) > 1),
        ]
        tokenizer = Tokenizer(
            models.WordPiece(vocab={piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
        )
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
        saved = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            model_max_length=max_tokens,
            pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        )  # fmt: skip
    saved.save_pretrained(str(folder))


def make_tiny_model(
    folder: Path, *, hidden: int = 32, layers: int = 2, max_tokens: int = 64, seed: int = 0
) -> Path:
    """Save a random BERT in the layout of sentence-transformers (mean pooling, no Normalize).

    The same arguments give the same weights.
    """
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder, max_tokens=max_tokens)
    config = BertConfig(
        vocab_size=512, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=4 * hidden, max_position_embeddings=max_tokens, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertModel(config).eval()
    model.save_pretrained(str(folder))
    return wrap_as_sentence_transformer(folder, hidden=hidden, max_tokens=max_tokens)


def wrap_as_sentence_transformer(
    folder: Path, *, hidden: int, max_tokens: int | None, pooling: str = "mean"
) -> Path:
    """Put the files around a transformers directory that make it a sentence-transformers one."""
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    flags = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "lasttoken": "lasttoken"}
    pooled = {f"pooling_mode_{flag}": name == pooling for name, flag in flags.items()}
    _write_json(folder / "modules.json", modules)
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    _write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden, **pooled})
    return folder


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2))


def make_tiny_clip(folder: Path, *, kind: str = "clip", seed: int = 0) -> Path:
    """Save what `examples/make_clip_model.py` makes: a random `clip`, `siglip` or `dinov2` for images of 64 pixels.

    The vectors have 32 dimensions (`clip`) or 64. The same arguments give the same weights.
    """
    spec = importlib.util.spec_from_file_location(
        "make_clip_model", REPOSITORY / "examples/make_clip_model.py"
    )
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example.make_model(folder, "tiny", kind, seed)


def make_light_model(folder: Path) -> Path:
    """A user's model that needs numpy alone: processes that load it start in a second. Vectors of 8 numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"name": "light", "batch_size": 64}')
    (folder / "model.py").write_text(
        """import hashlib

import numpy as np


class ModelImpl:
    def load(self):
        pass

    def encode(self, items):
        seeds = (int.from_bytes(hashlib.sha256((item["text"] or "").encode()).digest()[:8], "little") for item in items)
        return [np.random.default_rng(seed).standard_normal(8) for seed in seeds]
"""
    )
    return folder
