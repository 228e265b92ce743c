"""Ids are the library's own, whatever the text, also where a long one is not tokenized to its end."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from batch_assets.encoders.tokens import TextTokenizer, prefix_safe
from batch_assets.encoders.weights import locate_model
from batch_assets.settings.model import ModelSettings
from batch_assets_tests.builders import WORDS

CORPUS = [" ".join(random.Random(seed).choices(WORDS, k=30)) for seed in range(50)]


def _unigram() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def _bytes() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def _wordpiece() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(locate_model(ModelSettings()))


TOKENIZERS: dict[str, Any] = {"wordpiece": _wordpiece(), "unigram": _unigram(), "bytes": _bytes()}
PIECES = [
    *WORDS,
    "Don't",
    "naïve",
    "漢字",
    "e\u0301",
    "\u200b",
    "[SEP]",
    "</s>",
    "...",
    "a-b",
    "\n",
    "\t",
    "  ",
    "12",
    "ΑΣ",
]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=400),
    gaps=st.sampled_from([" ", "", "  "]),
    limit=st.integers(3, 12),
)
def test_ids_are_the_librarys_own(name: str, pieces: list[str], gaps: str, limit: int) -> None:
    text = gaps.join(pieces) + " " + " ".join(pieces)
    own = TextTokenizer(TOKENIZERS[name], limit, "query: ")([text, "x"])
    whole = TOKENIZERS[name](["query: " + text, "query: x"], truncation=True, max_length=limit)["input_ids"]
    assert [row.tolist() for row in own] == whole


class Recording:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.characters = 0

    def encode_batch_fast(self, texts: list[str]) -> Any:
        self.characters += sum(map(len, texts))
        return self.tokenizer.encode_batch_fast(texts)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_very_long_text_is_not_read_to_its_end(name: str) -> None:
    short = " ".join(CORPUS) * 2
    long = short + " the file" * 1_000_000
    tokenizer = TextTokenizer(TOKENIZERS[name], 64, "")
    library = tokenizer._tokenizer = Recording(tokenizer._tokenizer)
    (ids,) = tokenizer([long])
    assert library.characters < 5_000
    assert ids.tolist() == TOKENIZERS[name](short, truncation=True, max_length=64)["input_ids"]


def test_a_beginning_of_few_tokens_is_not_taken_for_the_whole() -> None:
    """Control characters vanish, so that the beginning makes too few tokens."""
    text = "the file" + "\x01" * 5_000 + "x and more " + "read the file " * 5_000
    own = TextTokenizer(TOKENIZERS["wordpiece"], 16, "")([text])
    assert own[0].tolist() == TOKENIZERS["wordpiece"](text, truncation=True, max_length=16)["input_ids"]


@pytest.mark.parametrize(
    "change",
    [
        lambda tokenizer: setattr(tokenizer, "pre_tokenizer", pre_tokenizers.Metaspace(split=False)),
        lambda tokenizer: setattr(tokenizer, "pre_tokenizer", pre_tokenizers.Split(Regex("b c"), "isolated")),
        lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Replace("a b", "c")),
        lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Replace(" ", "▁")),
        lambda tokenizer: tokenizer.add_tokens(["new york"]),
        lambda tokenizer: tokenizer.add_tokens([AddedToken("mask", lstrip=True)]),
    ],
)
def test_tokenizers_that_look_over_a_space_read_the_whole(
    tiny_model: Path, change: Callable[[Tokenizer], Any]
) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    assert prefix_safe(json.loads(tokenizer.to_str()))
    change(tokenizer)
    assert not prefix_safe(json.loads(tokenizer.to_str()))
