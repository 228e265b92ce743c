"""Texts to token ids by a Hugging Face tokenizer's own rule, many at once and from any thread.

The tokenizer is a private copy: transformers changes its tokenizer's truncation and padding at
every call, which two threads must not do at once. Padding is not done here.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

NO_LIMIT = 10**20
"""transformers writes a missing limit as 10^30 and takes anything above this for one."""

CHARACTERS_PER_TOKEN = 16
"""A text longer than so many characters for each token wanted is first tried in part."""

_BOUNDARY = re.compile(r"(?<=\w) (?=\w)")
_SPLITS_AT_SPACE = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit"})
_SPLITS_FURTHER = frozenset({"Punctuation", "Digits", "UnicodeScripts", *_SPLITS_AT_SPACE})
_LOCAL_NORMALIZERS = frozenset(
    {
        "BertNormalizer",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Nmt",
        "Lowercase",
        "StripAccents",
        "Strip",
        "Precompiled",
    }
)


class TextTokenizer:
    """Ids of prompt + text with special tokens, truncated to `limit`. Safe to call from several threads."""

    def __init__(self, tokenizer: Any, limit: int | None, prompt: str) -> None:
        """Copy `tokenizer`, a fast one of transformers; `limit` None truncates nothing."""
        from tokenizers import Tokenizer

        description = tokenizer.backend_tokenizer.to_str()
        self._tokenizer = Tokenizer.from_str(description)
        self._tokenizer.encode_special_tokens = tokenizer.backend_tokenizer.encode_special_tokens
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if limit is not None:
            self._tokenizer.enable_truncation(
                limit, strategy="longest_first", direction=tokenizer.truncation_side
            )
        self._limit = limit
        self._prompt = prompt
        self._may_shorten = (
            limit is not None
            and tokenizer.truncation_side == "right"
            and prefix_safe(json.loads(description))
        )

    def __call__(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """The ids of each text; empty where the tokenizer made no token."""
        whole = [self._prompt + text for text in texts]
        starts = [self._start(text) for text in whole]
        batch = [text if start is None else start for text, start in zip(whole, starts, strict=True)]
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(batch)]
        for index, start in enumerate(starts):
            if start is not None and len(ids[index]) < (self._limit or 0):
                ids[index] = self._tokenizer.encode_batch_fast([whole[index]])[0].ids
        return [np.array(row, dtype=np.int64) for row in ids]

    def _start(self, text: str) -> str | None:
        """The beginning of a very long text, cut at a space between two words; None to take the whole.

        Tokens of the beginning are the first tokens of the whole (`prefix_safe`), so where the
        beginning alone reaches the limit the ids are the same.
        """
        if not self._may_shorten or len(text) <= 2 * CHARACTERS_PER_TOKEN * (self._limit or 0):
            return None
        cut = _BOUNDARY.search(text, CHARACTERS_PER_TOKEN * (self._limit or 0))
        return None if cut is None else text[: cut.start()]


def prefix_safe(tokenizer: dict[str, Any]) -> bool:
    """Whether what stands before a space between two words is tokenized without regard to what follows.

    `tokenizer` is a tokenizer.json. True only for parts known to split at white space and to
    normalize locally; anything else is taken as unsafe.
    """
    if not all(_local(part) for part in _parts(tokenizer.get("normalizer"), "normalizers")):
        return False
    splitters = _parts(tokenizer.get("pre_tokenizer"), "pretokenizers")
    if not all(_at_space(part) or part["type"] in _SPLITS_FURTHER for part in splitters):
        return False
    added = [token for token in tokenizer.get("added_tokens", []) if _crosses_words(token)]
    return any(_at_space(part) for part in splitters) and not added


def _parts(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return (
        [inner for each in part[key] for inner in _parts(each, key)] if part["type"] == "Sequence" else [part]
    )


def _local(part: dict[str, Any]) -> bool:
    if part["type"] == "Replace":  # of runs of spaces, or of quotation marks; never of a single space
        return (part["pattern"].get("Regex") or part["pattern"].get("String")) in (" {2,}", "``", "''")
    return part["type"] in _LOCAL_NORMALIZERS


def _at_space(part: dict[str, Any]) -> bool:
    if part["type"] == "ByteLevel":
        return bool(part.get("use_regex", True))
    return part["type"] in _SPLITS_AT_SPACE or (part["type"] == "Metaspace" and bool(part.get("split", True)))


def _crosses_words(token: dict[str, Any]) -> bool:
    """Whether an added token could reach over a space, which is matched before anything is split."""
    content = token["content"]
    return " " in content or (
        (token["lstrip"] or token["rstrip"]) and re.search(r"^\w|\w$", content) is not None
    )
