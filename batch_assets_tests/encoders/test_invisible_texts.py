"""Texts of which a tokenizer leaves nothing are rejected; what it does not know is not nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from batch_assets.encoders.feeding import LibraryFeed
from batch_assets.encoders.invisible_texts import InvisibleTexts
from batch_assets.encoders.loading import load_model
from batch_assets.encoders.text import TextEncoder
from batch_assets.encoders.tokens import TextTokenizer
from batch_assets.errors import ConfigurationError, ModelError
from batch_assets.executors.gpu import GpuMachine
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets_tests.builders import WORDS

DROPPED = ["\u0301", "\ue000", "\u200b\u0301", "\u200e \u0308", "\ufffd", " \u0327\n"]
"""By BERT's own rules: accents, the private use area, zero-width and direction marks, what replaces bad bytes."""
KEPT = ["a", "\u200ba", "[SEP]", "漢", "e\u0301", "?"]


def load(folder: Path, **changes: Any) -> TextEncoder:
    return TextEncoder.load(ModelSettings(id=str(folder), dtype="float32", **changes), device="cpu")


@pytest.mark.parametrize("prompt", ["", "the file: ", "query:", "漢 "])
def test_nothing_is_left_of_them_whatever_the_prompt(prompt: str, tiny_model: Path) -> None:
    prepared = load(tiny_model, prompt=prompt).prepare([*KEPT, *DROPPED, *KEPT])
    expected = range(len(KEPT), len(KEPT) + len(DROPPED))
    assert sorted(prepared.faults) == list(expected)
    assert {fault.code for fault in prepared.faults.values()} == {"invisible_text"}
    assert np.flatnonzero(prepared.counts == 0).tolist() == list(expected)


def test_the_way_of_models_that_only_their_library_can_feed(tiny_model: Path) -> None:
    for prompt in (None, "the file: "):
        feed = LibraryFeed(load_model(ModelSettings(id=str(tiny_model)), "cpu", "float32"), prompt)
        assert sorted(feed.prepare([*DROPPED, *KEPT]).faults) == list(range(len(DROPPED)))


def test_a_model_without_a_transformer(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=24)], device="cpu").save(
        str(tmp_path)
    )
    assert sorted(load(tmp_path).prepare([*DROPPED, *KEPT]).faults) == list(range(len(DROPPED)))


def _unigram() -> PreTrainedTokenizerFast:
    """As SentencePiece's are: a zero-width space is a space, and a space a token of its own."""
    tokenizer = Tokenizer(models.Unigram())
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=100, special_tokens=["<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator([" ".join(WORDS)] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def _unknown_spaces() -> PreTrainedTokenizerFast:
    """Whole texts are looked up: all but `a` is unknown, a space too."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


@pytest.mark.parametrize(
    ("tokenizer", "found"), [(_unigram(), ["\u200b", "\u200b\u3000"]), (_unknown_spaces(), [])]
)
def test_other_tokenizers(tokenizer: PreTrainedTokenizerFast, found: list[str]) -> None:
    tokenize = TextTokenizer(tokenizer, 8, "")
    texts = ["\u200b", "a", "\u200b\u3000", "漢", "the file"]
    faults = InvisibleTexts(lambda text: tokenize([text])[0], tokenizer.unk_token_id).find(tokenize(texts))
    assert [texts[position] for position in faults] == found


def test_a_prompt_that_leaves_no_room_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing is left of any text.*shorten model\.prompt"):
        load(tiny_model, prompt="the file " * 4, max_tokens=9)
    assert not load(tiny_model, prompt="the file " * 3, max_tokens=9).prepare(["a"]).faults
    # A text longer than the limit keeps its end where the tokenizer says so, and the prompt goes.
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "truncation_side": "left"}))
    assert not load(folder, prompt="the file " * 4, max_tokens=9).prepare(["a"]).faults


def test_there_is_nothing_to_look_for(tiny_model: Path) -> None:
    values = {"source": {"uri": "in"}, "model": {"id": str(tiny_model)}, "output": {"root": "out"}}
    with pytest.raises(ConfigurationError, match="the model makes nothing of it"):
        GpuMachine(device="cpu").embed_query(parse_pipeline(values, "texts", "a test"), "\u0301")
