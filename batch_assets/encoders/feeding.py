"""From texts to the features that a model's first module takes.

`choose_feed` gives the fast way where it makes the very features that sentence-transformers makes,
and sentence-transformers' own way where not: chat templates, tokenizers without a Rust half,
static embeddings, routers.
"""

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from batch_assets.encoders.base import Prepared
from batch_assets.encoders.invisible_texts import Ids, InvisibleTexts
from batch_assets.encoders.text_tower import full_length
from batch_assets.encoders.tokens import NO_LIMIT, TextTokenizer
from batch_assets.sources.base import Fault

PROBES = (
    "a",
    "Naïve [SEP] <s> test: 12,345 of it!",
    "How do I open a file?",
    "Compress data with lzma",
    "x = {key: value for key, value in pairs}",
    "The weather in Zürich is lovely today; we walked along the lake until evening.",
    "the quick brown fox " * 8,
    "Return the sum of all numbers in the list, or zero if it is empty. " * 3,
)
"""Texts of different lengths, with what tokenizers stumble over."""
LONGEST_PROBE = 4096


class Feed(Protocol):
    """`parallel` says that both methods may run in several threads at once and are worth it."""

    parallel: bool

    def prepare(self, texts: Sequence[str]) -> Prepared: ...

    def features(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """What the first module takes, for one batch of `Prepared.inputs`."""
        ...


def choose_feed(model: Any, prompt: str | None, task: str | None = None) -> Feed:
    """The way to feed `model`, a SentenceTransformer whose limits are set; `task` is for its Router, if it has one."""
    from sentence_transformers.base.modules import Transformer

    library, first = LibraryFeed(model, prompt, task), model[0]
    fast = isinstance(first, Transformer) and getattr(first.tokenizer, "is_fast", False)
    if not fast or "message" in first.modality_config:
        return library
    if first.processing_kwargs and full_length(first) is None:
        return library
    own = TokenFeed(first, prompt)
    texts = [*PROBES, "words and more " * min(first.max_seq_length or LONGEST_PROBE, LONGEST_PROBE)]
    ours, theirs = own.features(own.prepare(texts).inputs), library.features(texts)
    return own if _same(ours, theirs) else library


class TokenFeed:
    """Ids made once and ahead, padded batch by batch."""

    parallel = True

    def __init__(self, transformer: Any, prompt: str | None) -> None:
        tokenizer, limit = transformer.tokenizer, transformer.max_seq_length
        self._tokenizer = TextTokenizer(
            tokenizer, int(limit) if limit is not None and limit < NO_LIMIT else None, prompt or ""
        )
        self._invisible = InvisibleTexts(lambda text: self._tokenizer([text])[0], tokenizer.unk_token_id)
        self._padding: int = tokenizer.pad_token_id
        self._pads_right = tokenizer.padding_side == "right"
        self._length = full_length(transformer)
        self._has_types = "token_type_ids" in tokenizer.model_input_names
        self._has_mask = "attention_mask" in tokenizer.model_input_names
        # What poolings that leave out the prompt ask for.
        self._more = {"prompt_length": transformer._get_prompt_length(prompt)} if prompt else {}

    def prepare(self, texts: Sequence[str]) -> Prepared:
        ids = self._tokenizer(texts)
        counts = [len(row) if self._length is None else self._length for row in ids]
        return _prepared(ids, counts, self._invisible.find(ids))

    def features(self, inputs: Sequence[npt.NDArray[np.int64]]) -> dict[str, Any]:
        import torch

        longest = self._length or max(len(row) for row in inputs)
        ids = np.full((len(inputs), longest), self._padding, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, target, seen in zip(inputs, ids, mask, strict=True):
            part = slice(0, len(row)) if self._pads_right else slice(longest - len(row), longest)
            target[part], seen[part] = row, 1
        features: dict[str, Any] = {"input_ids": torch.from_numpy(ids)}
        if self._has_mask:
            features["attention_mask"] = torch.from_numpy(mask)
        if self._has_types:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        return {**features, "modality": "text", **self._more}


class LibraryFeed:
    """Whatever sentence-transformers does, a batch at a time and under a lock: its tokenizers keep state."""

    parallel = False

    def __init__(self, model: Any, prompt: str | None, task: str | None = None) -> None:
        self._model, self._prompt = model, prompt
        self._task = {} if task is None else {"task": task}
        self._lock = threading.Lock()

    def prepare(self, texts: Sequence[str]) -> Prepared:
        counts: list[int] = []
        ids: list[Ids] = []
        for text in texts:
            features = self.features([text])
            counts.append(_count_tokens(features))
            if self._invisible is not None:
                ids.append(_ids(features))
        return _prepared(texts, counts, self._invisible.find(ids) if self._invisible is not None else {})

    def features(self, inputs: Sequence[str]) -> dict[str, Any]:
        with self._lock:
            # A Router behind the first module is told the task by the features.
            return self._task | self._model.preprocess(list(inputs), prompt=self._prompt, **self._task)

    @cached_property
    def _invisible(self) -> InvisibleTexts | None:
        """None where the library makes no ids of texts, or can make nothing of an empty one."""
        unknown = getattr(getattr(self._model[0], "tokenizer", None), "unk_token_id", None)
        try:
            empty = self.features([""])
            if len(_ids(empty)) and not _count_tokens(empty):
                return None  # these ids are a filling, which the id of a word may be, too
            return InvisibleTexts(lambda text: _ids(self.features([text])), unknown)
        except Exception:  # whatever a model's own code raises: its texts are taken as they are
            return None


def _prepared(inputs: Sequence[Any], counts: Sequence[int], faults: dict[int, Fault]) -> Prepared:
    found = np.array(counts, dtype=np.int32)
    found[list(faults)] = 0
    return Prepared(list(inputs), found, faults)


def _ids(features: dict[str, Any]) -> Ids:
    """The token ids of the one text that `features` is made of. Raises KeyError where they hold none."""
    return features["input_ids"].numpy().reshape(-1)


def _count_tokens(features: dict[str, Any]) -> int:
    """Tokens of the one text that `features` is made of; 1 where they do not tell."""
    for name in ("attention_mask", "sentence_lengths"):
        if name in features:
            return int(features[name].sum())
    return int(features["input_ids"].numel()) if "input_ids" in features else 1


def _same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    import torch

    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]
        for name, value in ours.items()
    )
