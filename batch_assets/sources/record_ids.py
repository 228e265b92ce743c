"""Counting records' ids: how many occur more than once, and how many records have none.

Ids are told apart by hashes of 64 bits, which are of this process and are kept nowhere. Where ids come
from is the formats' business, what duplicates mean that of whoever counts.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch_assets.sources.base import Fault

Hashes = npt.NDArray[np.int64]
NO_ID, REJECTED = 0, 1
"""In place of a hash: of a record without an id, and of one that is rejected and does not count."""

MOST_IN_MEMORY = 2**21
"""Different ids that are held at once, in some 100 MB."""
_PENDING = 2**19


@dataclass(frozen=True)
class IdCount:
    """`duplicates` ids occur more than once, in `records` records; `missing` records have no id.

    The first two are estimates where it is not `exact`.
    """

    duplicates: int = 0
    records: int = 0
    missing: int = 0
    exact: bool = True

    @property
    def unique(self) -> bool:
        """Whether every record has an id of its own."""
        return not (self.duplicates or self.missing)

    def describe(self) -> list[str]:
        """What there is to tell, in parts of a sentence."""
        about = "" if self.exact else "about "
        told: list[str] = []
        if self.duplicates:
            told.append(
                f"{about}{self.duplicates:,} ids occur more than once ({about}{self.records:,} records)"
            )
        if self.missing:
            told.append(f"{self.missing:,} records have no id and are named by their place")
        return told


NO_IDS = IdCount()


def id_hashes(ids: Iterable[str | Fault | None]) -> list[int]:
    """What an `IdCounter` is given of records' ids; of a fault, that the record is rejected."""
    return [
        NO_ID if one is None else REJECTED if isinstance(one, Fault) else hash(one) or REJECTED + 1
        for one in ids
    ]


class IdCounter:
    """Counts any number of ids in bounded memory.

    Up to `MOST_IN_MEMORY` different ids the count is exact. Beyond that, it stays so where `exact` is asked
    for: sorted runs go to temporary files, 16 bytes for each id. Otherwise every second id is dropped, each
    time that many are there, and what is left is multiplied. Of n duplicate ids where one of s is kept, that
    is off by some √(s·n).
    """

    def __init__(self, *, exact: bool = False) -> None:
        self._exact = exact
        self._missing = 0
        self._halvings = 0
        self._pending: list[Hashes] = []
        self._waiting = 0
        self._run = _EMPTY
        self._runs: list[_Run] = []

    def add(self, hashes: Hashes | list[int]) -> None:
        """Count some records, by the hashes of their ids."""
        hashes = np.asarray(hashes, np.int64)
        self._missing += int(np.count_nonzero(hashes == NO_ID))
        kept = (hashes != NO_ID) & (hashes != REJECTED) & (hashes & (2**self._halvings - 1) == 0)
        self._pending.append(hashes[kept])
        self._waiting += len(self._pending[-1])
        if self._waiting >= _PENDING:
            self._settle()

    def _settle(self) -> None:
        """Sort what has come in into what was there, and make room."""
        new = np.concatenate([np.empty(0, np.int64), *self._pending])
        self._pending, self._waiting = [], 0
        self._run = _together([self._run, _Run(*np.unique(new, return_counts=True))])
        if len(self._run.hashes) < MOST_IN_MEMORY:
            return
        if self._exact:
            self._runs.append(_on_disk(self._run))
            self._run = _EMPTY
        while len(self._run.hashes) >= MOST_IN_MEMORY:
            self._halvings += 1
            kept = self._run.hashes & (2**self._halvings - 1) == 0
            self._run = _Run(self._run.hashes[kept], self._run.counts[kept])

    def count(self) -> IdCount:
        """The records counted so far."""
        duplicates = records = 0
        for run in self._duplicates():
            duplicates += len(run.hashes)
            records += int(run.counts.sum())
        scale = 2**self._halvings
        return IdCount(duplicates * scale, records * scale, self._missing, scale == 1)

    def duplicates(self, most: int) -> Hashes:
        """Hashes of ids that occur more than once, sorted; at most so many."""
        found: list[Hashes] = [np.empty(0, np.int64)]
        for run in self._duplicates():
            found.append(run.hashes[: most - sum(map(len, found))])
        return np.concatenate(found)

    def _duplicates(self) -> Iterator["_Run"]:
        self._settle()
        runs = [*self._runs, self._run]
        # So many ranges of values that each has about as many ids as one run.
        limits = np.iinfo(np.int64)
        bounds = np.linspace(limits.min, limits.max, len(runs) + 1)[1:-1].astype(np.int64)
        cuts = [[0, *np.searchsorted(run.hashes, bounds).tolist(), len(run.hashes)] for run in runs]
        for number in range(len(runs)):
            merged = _together(
                [
                    _Run(run.hashes[cut[number] : cut[number + 1]], run.counts[cut[number] : cut[number + 1]])
                    for run, cut in zip(runs, cuts, strict=True)
                ]
            )
            several = merged.counts > 1
            yield _Run(merged.hashes[several], merged.counts[several])


@dataclass(frozen=True)
class _Run:
    """Different hashes (n,), ascending, and how often each has come (n,)."""

    hashes: Hashes
    counts: Hashes


_EMPTY = _Run(np.empty(0, np.int64), np.empty(0, np.int64))


def _together(runs: list[_Run]) -> _Run:
    hashes = np.concatenate([run.hashes for run in runs])
    if not len(hashes):
        return _EMPTY
    order = np.argsort(hashes, kind="stable")  # which takes sorted runs as they are
    hashes = hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    counts = np.concatenate([run.counts for run in runs])[order]
    return _Run(hashes[starts], np.add.reduceat(counts, starts))


def _on_disk(run: _Run) -> _Run:
    with tempfile.TemporaryFile() as file:
        file.write(run.hashes.data)
        file.write(run.counts.data)
        file.flush()
        mapped = np.memmap(file, np.int64, "r", shape=(2, len(run.hashes)))  # outlives the file's handle
    return _Run(mapped[0], mapped[1])
