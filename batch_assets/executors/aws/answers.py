"""What one record's answer is, whichever service gave it, and the numbers in it.

Where in an answer the result is, each service's folder knows.
"""

from typing import Any, NamedTuple

import numpy as np

_MOST_TOKENS = 2**31 - 1


class BadAnswer(ValueError):
    """An answer that holds no usable result; the text says what is wrong."""


class Answer(NamedTuple):
    """One record's result: `vector`, float64 as wide as it came, or `text`. Tokens are 0 where they are not told."""

    vector: memoryview | None = None
    text: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def read_numbers(value: Any) -> memoryview | None:
    """An array of numbers as float64: a list, or simdjson's view of one, which it flattens. None for anything else."""
    try:
        if not isinstance(value, list):
            return memoryview(value.as_buffer(of_type="d"))  # simdjson's array: no Python number is made
        return np.array(value, dtype=np.float64).data if all(map(is_number, value)) else None
    except (AttributeError, TypeError, OverflowError):
        return None


def read_count(value: Any) -> int:
    """A number of tokens; 0 for what is none."""
    return min(value, _MOST_TOKENS) if type(value) is int and value > 0 else 0
