"""Faults of an answer's content: what a server delivers with status 200 though it is wrong."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from batch_assets_tests.gateway.scenario import Fault

Answer = dict[str, Any]


def damage(answer: Answer, fault: Fault, texts: list[str]) -> None:
    """Change `answer` as `fault` says. A kind that the answer has no place for changes nothing."""
    hit = [row for row, text in enumerate(texts) if fault.text is None or fault.text in text]
    hit = hit if fault.text is not None else hit[:1]
    if "data" in answer and fault.kind in _VECTORS:
        for row in hit:
            item = answer["data"][row]
            item["embedding"] = _VECTORS[fault.kind](item["embedding"])
    elif "data" in answer and fault.kind in _LISTS:
        _LISTS[fault.kind](answer["data"])
    elif "choices" in answer and fault.kind in _CHOICES:
        for row in hit:
            _CHOICES[fault.kind](answer["choices"][row])
    elif fault.kind == "no_usage":
        del answer["usage"]


def _with_nan(vector: Any) -> Any:
    spoiled = vector.copy()
    spoiled[0] = np.nan
    return spoiled


_VECTORS: dict[str, Callable[[Any], Any]] = {
    "null_vector": lambda _: None,
    "zero_vector": np.zeros_like,
    "nan_vector": _with_nan,
    "wrong_width": lambda vector: vector[:-1],
}


def _shuffle(data: list[Answer]) -> None:
    data.reverse() if len(data) < 3 else random.Random(len(data)).shuffle(data)


def _double(data: list[Answer]) -> None:
    data[-1]["index"] = data[0]["index"] if len(data) > 1 else 1


def _misnumber(data: list[Answer]) -> None:
    data[-1]["index"] = len(data)


_LISTS: dict[str, Callable[[list[Answer]], Any]] = {
    "missing_vector": lambda data: data.pop(),
    "shuffled": _shuffle,
    "duplicate_index": _double,
    "wrong_index": _misnumber,
}


def _say(choice: Answer, content: str | None) -> None:
    if "message" in choice:
        choice["message"]["content"] = content
    else:
        choice["text"] = content


def _said(choice: Answer) -> str:
    return choice["message"]["content"] if "message" in choice else choice["text"]


def _cut(choice: Answer) -> None:
    _say(choice, _said(choice)[: len(_said(choice)) // 2])
    choice["finish_reason"] = "length"


_CHOICES: dict[str, Callable[[Answer], None]] = {
    "finish_length": _cut,
    "null_answer": lambda choice: _say(choice, None),
    "not_json": lambda choice: _say(choice, "I am sorry, I cannot answer in JSON."),
}
