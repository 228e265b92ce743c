"""What a server's answer holds for each input of a call: its vector as it is stored, or what is wrong with it.

Vectors go by their `index`, never by position: a server may leave one out, or answer in another order.
"""

import base64
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from batch_assets.embeddings.reason_codes import MISSING, UNEXPECTED
from batch_assets.gateway.client import Answer
from batch_assets.gateway.delivery import BadAnswer

Vector = npt.NDArray[np.float32]
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Unsound:
    """In place of a vector: why there is none."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of one answer, by input, and the tokens of all inputs together; 0 where they are not told."""

    by_input: list[Vector | Unsound]
    tokens: int


class VectorReader:
    """Reads answers of one pipeline. `width` is that of all its vectors, once one is known.

    `dimensions` and `normalize` are those of `ModelSettings`.
    """

    def __init__(self, dimensions: int | None, normalize: bool) -> None:
        self.width = dimensions
        self._dimensions = dimensions
        self._normalize = normalize

    def read(self, answer: Answer, inputs: int) -> Vectors:
        """The vectors of a call with so many inputs.

        Raises BadAnswer for an answer that holds none, and for a call of one input where its vector is unsound.
        """
        try:
            content: Any = orjson.loads(answer.body)
            told = [(each.get("index"), each.get("embedding")) for each in content["data"]]
            tokens = int((content.get("usage") or {}).get("prompt_tokens") or 0)
        except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError, ValueError):
            shown = " ".join(answer.body[:_SHOWN].decode(errors="replace").split())
            raise BadAnswer(UNEXPECTED, f"the answer holds no embeddings: {shown}") from None
        if inputs == len(told) == 1 and told[0][0] is None:
            told = [(0, told[0][1])]  # of one input it can be no other's
        whole = self._all_at_once(told, inputs)
        if whole is not None:
            return Vectors(list(whole), tokens)
        vectors = [(index, self._vector(value)) for index, value in told]
        self._learn_width([vector for _, vector in vectors if not isinstance(vector, Unsound)])
        missing = Unsound(
            MISSING, f"the server gave {len(told)} vectors for {inputs} inputs, and none for this one"
        )
        by_input: list[Vector | Unsound] = [missing] * inputs
        seen: set[int] = set()
        for index, vector in vectors:
            if type(index) is not int or not 0 <= index < inputs:
                continue
            twice = Unsound(UNEXPECTED, f"the server gave two vectors for input {index}")
            by_input[index] = twice if index in seen else self._of_width(vector)
            seen.add(index)
        if inputs == 1 and isinstance(by_input[0], Unsound):
            raise BadAnswer(by_input[0].code, by_input[0].message)
        return Vectors(by_input, tokens)

    def _all_at_once(self, told: list[tuple[Any, Any]], inputs: int) -> Vector | None:
        """(inputs, width): the vectors of an answer in which all is as it should be, in base64; None for any other.

        One decoding in place of one for each: three times as many records a second.
        """
        texts: list[str | None] = [None] * inputs
        for index, value in told:
            if type(index) is int and 0 <= index < inputs and isinstance(value, str):
                texts[index] = value
        lengths = {len(text) if text is not None and not text.endswith("=") else -1 for text in texts}
        length = lengths.pop()
        if (
            lengths or len(told) != inputs or length < 4 or length % 16
        ):  # 16 characters are three whole numbers
            return None
        try:
            joined = base64.b64decode("".join(text for text in texts if text is not None), validate=True)
        except ValueError:
            return None
        vectors = (
            np.frombuffer(joined, dtype="<f4").reshape(inputs, -1)[:, : self._dimensions].astype(np.float32)
        )
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        if self.width not in (None, vectors.shape[1]) or not np.isfinite(norms).all() or not norms.all():
            return None
        self.width = vectors.shape[1]
        return vectors / norms.astype(np.float32) if self._normalize else vectors

    def _vector(self, value: Any) -> Vector | Unsound:
        """A list of numbers, or base64 of float32, cut and normalized as the pipeline asks."""
        try:
            if isinstance(value, str):
                vector = np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float32)
            else:
                vector = np.array(value, dtype=np.float32)
        except (ValueError, TypeError):
            vector = np.empty((0, 0), dtype=np.float32)
        if vector.ndim != 1 or not len(vector):
            return Unsound(MISSING, f"the server gave no vector, but {str(value)[:60]!r}")
        vector = vector[: self._dimensions]
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not np.isfinite(length):
            return Unsound("non_finite", "the server gave a vector with numbers that are not finite")
        if length == 0:
            return Unsound("zero_norm", "the server gave a vector of zeros")
        return vector / np.float32(length) if self._normalize else vector

    def _learn_width(self, vectors: list[Vector]) -> None:
        """Where no vector was seen before: most of an answer's are as wide as they are to be."""
        if self.width is None and vectors:
            [(self.width, _)] = Counter(map(len, vectors)).most_common(1)

    def _of_width(self, vector: Vector | Unsound) -> Vector | Unsound:
        if isinstance(vector, Unsound) or len(vector) == self.width:
            return vector
        told = f"the server gave a vector of {len(vector)} dimensions, and the others have {self.width}"
        return Unsound(UNEXPECTED, told)
