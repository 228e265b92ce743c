"""A few records that share an id, or have none, each with its place: what a refusal shows."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from batch_assets.sources.record_ids import NO_ID, Hashes, id_hashes

MOST_SUSPECTS = 2**16
_SHOWN = 3
_LONGEST_ID = 80


class IdExamples:
    """Looks at records until it has `_SHOWN` examples of one kind.

    `suspects` are hashes, sorted, of ids that may occur more than once; here the ids themselves are
    compared, since two of 10⁸ may have one hash.
    """

    def __init__(self, suspects: Hashes) -> None:
        self._suspects = suspects
        self._seen: dict[str, str] = {}
        self._duplicates: list[str] = []
        self._missing: list[str] = []

    def look(self, ids: Sequence[str | None], files: Sequence[str], rows: Sequence[int]) -> bool:
        """Take note of some records, in source order; their ids are None where they have none. True: it is enough."""
        hashes = np.array(id_hashes(ids), np.int64)
        for index in np.flatnonzero(self._suspicious(hashes)).tolist():
            found, place = ids[index], f"{files[index]} row {rows[index]}"
            if found is None:
                self._missing.append(place)
            elif found in self._seen:
                self._duplicates.append(f"{found[:_LONGEST_ID]!r} in {self._seen[found]} and {place}")
            else:
                self._seen[found] = place
            if len(self._duplicates) == _SHOWN or len(self._missing) == _SHOWN:
                return True
        return False

    def _suspicious(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        suspicious = hashes == NO_ID
        if len(self._suspects):
            nearest = np.searchsorted(self._suspects, hashes).clip(max=len(self._suspects) - 1)
            suspicious |= self._suspects[nearest] == hashes
        return suspicious

    def __bool__(self) -> bool:
        return bool(self._duplicates or self._missing)

    def __str__(self) -> str:
        told = self._duplicates + [f"none in {place}" for place in self._missing]
        return "; ".join(told)
