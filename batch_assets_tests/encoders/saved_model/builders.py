"""Small random models of many kinds, saved as their own libraries save them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer import modules as st
from sentence_transformers.sparse_encoder.modules import SpladePooling
from tokenizers import Tokenizer

from batch_assets_tests.builders import WORDS, make_tiny_clip, make_tokenizer, wrap_as_sentence_transformer

Make = Callable[[Path], Any]
SHAPE: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "initializer_range": 0.2,
}  # fmt: skip
DECODER = {**SHAPE, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 128}


def bare(name: str, *, tokenizer: str = "bert", **config: Any) -> Make:
    """A transformers directory of the class `name`, with its config from `config` and SHAPE."""

    def make(folder: Path) -> None:
        model_class = getattr(transformers, name)
        model_class(model_class.config_class(**(config or SHAPE))).eval().save_pretrained(folder)
        make_tokenizer(folder, kind=tokenizer)
        if tokenizer == "gpt":  # without one, sentence-transformers' own encode fails
            file = folder / "tokenizer_config.json"
            write(file, json.loads(file.read_text()) | {"pad_token": "<|end|>"})

    return make


def pooled(make: Make, pooling: str = "mean", **saved: Any) -> Make:
    """The same in the layout of sentence-transformers; `saved` is its config_sentence_transformers.json."""

    def wrap(folder: Path) -> None:
        make(folder)
        wrap_as_sentence_transformer(folder, hidden=32, max_tokens=64, pooling=pooling)
        if saved:
            write(folder / "config_sentence_transformers.json", saved)

    return wrap


def write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value))


BERT = bare("BertModel", **SHAPE, max_position_embeddings=64)


def transformer(folder: Path) -> Transformer:
    """sentence-transformers' own first module, of a small BERT."""
    BERT(folder)
    return Transformer(str(folder))


def built(*more: Callable[[], Any], first: str = "mean", **options: Any) -> Make:
    """A SentenceTransformer of a BERT, a pooling and `more` modules, saved by itself."""

    def make(folder: Path) -> None:
        parts = [transformer(folder.parent / "first"), st.Pooling(32, first), *(module() for module in more)]
        SentenceTransformer(modules=parts, device="cpu", **options).save(str(folder))

    return make


def pooling_modes(*modes: Any) -> Make:
    def make(folder: Path) -> None:
        parts = [transformer(folder.parent / "first"), st.Pooling(32, modes)]
        SentenceTransformer(modules=parts, device="cpu").save(str(folder))

    return make


def asymmetric(**options: Any) -> Make:
    """A Router: queries by static embeddings, documents by a BERT."""

    def make(folder: Path) -> None:
        bert = transformer(folder.parent / "first")
        tokenizer = Tokenizer.from_file(str(folder.parent / "first" / "tokenizer.json"))
        routes = {
            "query": [st.StaticEmbedding(tokenizer, embedding_dim=32)],
            "document": [bert, st.Pooling(32, "mean")],
        }
        SentenceTransformer(modules=[Router(routes, **options)], device="cpu").save(str(folder))

    return make


def static(folder: Path) -> None:
    make_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    SentenceTransformer(modules=[st.StaticEmbedding(tokenizer, embedding_dim=24)], device="cpu").save(
        str(folder)
    )


def words(*between: Callable[[], Any], width: int = 16) -> Make:
    """Embeddings of whole words, with what stands between them and the pooling."""

    def make(folder: Path) -> None:
        from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

        tokenizer = WhitespaceTokenizer(vocab=sorted(WORDS), stop_words=[])
        table = torch.randn(len(WORDS), 16).numpy()
        first = st.WordEmbeddings(tokenizer, embedding_weights=table)
        parts = [first, *(module() for module in between), st.Pooling(width, "mean")]
        SentenceTransformer(modules=parts, device="cpu").save(str(folder))

    return make


def bag_of_words(folder: Path) -> None:
    vocabulary = sorted(set(WORDS))
    parts = [st.BoW(vocabulary, {}, 0), st.Dense(len(vocabulary), 16)]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder))


def clip(folder: Path) -> None:
    make_tiny_clip(folder)


def sharded(folder: Path) -> None:
    pooled(BERT)(folder)
    model = transformers.BertModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    assert (folder / "model.safetensors.index.json").is_file()


def in_a_subfolder(folder: Path) -> None:
    folder.mkdir()
    (folder / "0_Transformer").mkdir()
    BERT(folder / "0_Transformer")
    wrap_as_sentence_transformer(folder, hidden=32, max_tokens=64)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    write(folder / "modules.json", modules)
    (folder / "sentence_bert_config.json").rename(folder / "0_Transformer" / "sentence_bert_config.json")


MEAN = pooled(BERT)


def prefixed(prefix: str, make: Make = MEAN) -> Make:
    """A model whose weights all have names with a prefix before what its library looks for."""

    def wrap(folder: Path) -> None:
        make(folder)
        for file in folder.rglob("*.safetensors"):
            if "linear.weight" not in (tensors := load_file(file)):
                save_file({prefix + name: value for name, value in tensors.items()}, file, {"format": "pt"})
        for file in folder.glob("*.index.json"):
            index = json.loads(file.read_text())
            index["weight_map"] = {prefix + name: part for name, part in index["weight_map"].items()}
            write(file, index)

    return wrap


def renamed(change: Callable[[dict[str, Any]], dict[str, Any]], where: str = "", make: Make = MEAN) -> Make:
    """A model whose tensors in one file are changed."""

    def wrap(folder: Path) -> None:
        make(folder)
        file = folder / where / "model.safetensors"
        save_file(change(load_file(file)), file, {"format": "pt"})

    return wrap


def splade(folder: Path) -> None:
    bare("BertForMaskedLM", **SHAPE, max_position_embeddings=64)(folder.parent / "first")
    first = Transformer(str(folder.parent / "first"), transformer_task="fill-mask")
    SparseEncoder(modules=[first, SpladePooling("max")], device="cpu").save(str(folder))


def cross_encoder(folder: Path) -> None:
    bare("BertForSequenceClassification", **SHAPE, max_position_embeddings=64, num_labels=1)(
        folder.parent / "first"
    )
    CrossEncoder(str(folder.parent / "first"), device="cpu").save(str(folder))


def pylate(folder: Path) -> None:
    pooled(BERT, query_prefix="[Q] ", document_prefix="[D] ", query_length=32)(folder)


def as_type(kind: str) -> Make:
    return pooled(BERT, model_type=kind)


def named(architecture: str) -> Make:
    """A bare BERT whose config calls it otherwise."""

    def make(folder: Path) -> None:
        BERT(folder)
        config = json.loads((folder / "config.json").read_text())
        write(folder / "config.json", {**config, "architectures": [architecture]})

    return make


def adapter(make: Make) -> Make:
    def wrap(folder: Path) -> None:
        make(folder)
        write(folder / "adapter_config.json", {"base_model_name_or_path": "owner/base", "peft_type": "LORA"})

    return wrap


def adapter_alone(folder: Path) -> None:
    folder.mkdir()
    write(folder / "adapter_config.json", {"base_model_name_or_path": "owner/base", "peft_type": "LORA"})
    save_file(
        {"base_model.model.encoder.lora_A.weight": torch.zeros(2, 2)}, folder / "adapter_model.safetensors"
    )


def mismatched(folder: Path) -> None:
    """A config of another width than the weights have, and leave to make up what does not fit."""
    pooled(BERT)(folder)
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", {**config, "intermediate_size": 48})
    saved = json.loads((folder / "sentence_bert_config.json").read_text())
    write(folder / "sentence_bert_config.json", {**saved, "model_args": {"ignore_mismatched_sizes": True}})


def without_pooling(folder: Path) -> None:
    pooled(BERT)(folder)
    modules = json.loads((folder / "modules.json").read_text())
    write(folder / "modules.json", modules[:1])
