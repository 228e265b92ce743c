"""Whether vectors are what a model should give: of one dimension, finite, of the right length.

Vectors come in as (n, dimensions) float32 or float16; nothing here changes them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# How far from 1 the length of a stored, normalized vector may be. Rounding an element to
# float16 moves it by up to 2^-11 of itself, and so the length by up to 5e-4.
NORM_TOLERANCE = {"float32": 1e-3, "float16": 5e-3}
_CHUNK_ROWS = 4096

Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float16]


class VectorError(ValueError):
    """Vectors that must not be stored; the text says which and why."""


@dataclass
class Norms:
    """Lengths of many vectors, without keeping them."""

    count: int = 0
    total: float = 0.0
    min: float = float("inf")
    max: float = 0.0

    def add(self, other: "Norms") -> None:
        self.count += other.count
        self.total += other.total
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)

    def summary(self) -> dict[str, float]:
        """`min`, `max` and `mean`, or nothing where there were no vectors."""
        if not self.count:
            return {}
        return {"min": self.min, "max": self.max, "mean": self.total / self.count}


def vector_norms(vectors: Vectors) -> npt.NDArray[np.float32]:
    """Length of each vector (n,); not finite exactly where an element is not.

    Squares are summed in float32; a row whose sum overflows is computed again in float64.
    """
    squares = np.empty(len(vectors), dtype=np.float32)
    for start in range(0, len(vectors), _CHUNK_ROWS):
        chunk = vectors[start : start + _CHUNK_ROWS].astype(np.float32, copy=False)
        np.einsum("ij,ij->i", chunk, chunk, out=squares[start : start + len(chunk)])
    norms = np.sqrt(squares)
    for row in np.flatnonzero(~np.isfinite(norms)):
        exact = np.linalg.norm(vectors[row].astype(np.float64))
        norms[row] = min(exact, np.finfo(np.float32).max) if np.isfinite(exact) else exact
    return norms


def unsound(norms: npt.NDArray[Any], vector_dtype: str, normalized: bool) -> npt.NDArray[np.bool_]:
    """Which vectors must not be stored, by their lengths: not finite, or not of length 1 if they should be.

    Encoders use it to make such a record a failure of its own; the writer, to refuse a batch.
    """
    bad = ~np.isfinite(norms)
    if normalized:
        with np.errstate(invalid="ignore"):
            bad |= np.abs(norms - 1.0) > NORM_TOLERANCE[vector_dtype]
    return bad


def validate_vectors(vectors: Vectors, dimensions: int, normalized: bool, first_row: int = 0) -> Norms:
    """The vectors' lengths, once all are found sound; VectorError names the first row that is not.

    Meant for vectors as they are stored: the type of `vectors` sets the tolerance. `first_row` is
    the number of the first one, for the sentence.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dimensions:
        raise VectorError(f"vectors of shape {vectors.shape} where (n, {dimensions}) is expected")
    if not len(vectors):
        return Norms()
    norms = vector_norms(vectors)
    bad = np.flatnonzero(unsound(norms, vectors.dtype.name, normalized))
    if len(bad):
        row = int(bad[0])
        wrong = "is not finite" if not np.isfinite(norms[row]) else f"has length {norms[row]:.6f}, not 1"
        raise VectorError(f"{len(bad)} unsound vectors; that of row {first_row + row} {wrong}")
    return Norms(len(norms), float(norms.sum(dtype=np.float64)), float(norms.min()), float(norms.max()))
