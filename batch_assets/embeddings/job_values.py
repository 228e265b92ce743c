"""Vectors and texts on a temporary file, written once as they come, read back in any order.

Which record a value belongs to is known by whoever keeps its number: `job_rows.py`.
"""

import contextlib
import itertools
import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
import numpy.typing as npt

from batch_assets.errors import LastingStorageError


class VectorFile:
    """Vectors (dimensions,) float32 of one dimension, numbered from 0 in the order of writing.

    Only `read` takes memory, for what it returns. The file has no name: it goes with the process.
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._row_bytes = 4 * dimensions
        self._count = 0
        self._file = _temporary_file()

    def append(self, vectors: npt.NDArray[np.float32]) -> int:
        """Write vectors (n, dimensions); returns the number of the first one. Raises StorageError."""
        first = self._count
        data = np.ascontiguousarray(vectors, dtype=np.float32).data.cast("B")
        with _explained():
            self._file.seek(first * self._row_bytes)
            while data:
                data = data[self._file.write(data) :]
        self._count += len(vectors)
        return first

    def read(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The vectors (n, dimensions) of some numbers, in their order."""
        order = np.argsort(numbers, kind="stable")
        ascending = numbers[order]
        found = np.empty((len(numbers), self.dimensions), dtype=np.float32)
        # One call for each stretch of neighbours: the whole batch where a service kept the order.
        bounds = [0, *(np.flatnonzero(np.diff(ascending) != 1) + 1).tolist(), len(ascending)]
        for start, stop in itertools.pairwise(bounds):
            if start < stop:
                self._read_into(found[start:stop], int(ascending[start]) * self._row_bytes)
        if np.array_equal(ascending, numbers):
            return found
        asked = np.empty_like(found)
        asked[order] = found
        return asked

    def _read_into(self, target: npt.NDArray[np.float32], offset: int) -> None:
        data = target.data.cast("B")
        with _explained():
            while data:
                count = os.preadv(self._file.fileno(), [data], offset)
                if not count:
                    raise EOFError("a temporary file is shorter than what was written to it")
                data, offset = data[count:], offset + count

    def close(self) -> None:
        self._file.close()


class TextFile:
    """Texts, numbered from 0 in the order of writing; eight bytes of memory each."""

    def __init__(self) -> None:
        self._ends = array("q", [0])
        self._file = _temporary_file()

    def append(self, text: str) -> int:
        """Write a text; returns its number. What UTF-8 cannot hold becomes `?`. Raises StorageError."""
        data = memoryview(text.encode("utf-8", "replace"))
        end = self._ends[-1] + len(data)
        with _explained():
            self._file.seek(self._ends[-1])
            while data:
                data = data[self._file.write(data) :]
        self._ends.append(end)
        return len(self._ends) - 2

    def read(self, numbers: Sequence[int]) -> list[str]:
        """The texts of some numbers, in their order."""
        with _explained():
            return [
                os.pread(
                    self._file.fileno(), self._ends[number + 1] - self._ends[number], self._ends[number]
                ).decode()
                for number in numbers
            ]

    def close(self) -> None:
        self._file.close()


def _temporary_file() -> IO[bytes]:
    with _explained():
        return tempfile.TemporaryFile(buffering=0, prefix="batch-assets-")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno is not None else str(error)
        raise LastingStorageError(
            f"{tempfile.gettempdir()}: {reason}; results lie there until they are stored: make room, or name "
            "another folder in TMPDIR, then go on with the same command"
        ) from error
