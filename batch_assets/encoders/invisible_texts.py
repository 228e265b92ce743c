"""Texts of which a tokenizer leaves nothing: zero-width characters, control characters, a lone accent.

What is embedded of them is the special tokens alone, or the prompt, so that they would all have
one and the same vector. Which characters are dropped is the tokenizer's own rule; a character that
it does not know is not dropped, but becomes the token for unknown ones. What no reader could see,
whatever the model, is rejected before (`sources/invisible.py`).
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from batch_assets.sources.base import Fault

INVISIBLE_TEXT = Fault(
    "invisible_text",
    "the model's tokenizer leaves nothing of the text: it holds only characters that are dropped",
)

Ids = npt.NDArray[np.int64]


class InvisibleTexts:
    """Finds them by their token ids, which are those of an empty text, or of a space."""

    def __init__(self, tokenize: Callable[[str], Ids], unknown: int | None) -> None:
        """`tokenize` gives a text's ids, prompt and special tokens included; `unknown` is the id for what has none."""
        self._blanks = [tokenize("")]
        # Some tokenizers turn what cannot be seen into a space. Where a space is unknown, much else is, too.
        if unknown is not None and unknown not in (space := tokenize(" ")):
            self._blanks.append(space)
        self._longest = max(map(len, self._blanks))

    def find(self, rows: Sequence[Ids]) -> dict[int, Fault]:
        """The position of each text that is one, in `rows`, the ids of many."""
        short = [position for position, row in enumerate(rows) if len(row) <= self._longest]
        return {
            position: INVISIBLE_TEXT
            for position in short
            if any(np.array_equal(rows[position], blank) for blank in self._blanks)
        }
