"""What is known of each record of a shard, and why some have no answer: a state and a reason by ordinal.

Answers, and how they are kept, are in `job_rows.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch_assets.embeddings.outcomes import Failure
from batch_assets.embeddings.reason_codes import MISSING

# Ascending: what is known never becomes less. Only a first answer counts, and nothing beats it.
UNKNOWN, AGAIN, FAILED, DONE = range(4)
MESSAGE_CHARACTERS = 1000


@dataclass(frozen=True)
class RowCounts:
    """Numbers of records by what is known of them; `embedded` are vectors or answers."""

    embedded: int
    failed: int
    again: int
    unknown: int


class RowStates:
    """The states of ordinals 0 … `records` - 1; all are unknown at first. Some bytes of memory each."""

    def __init__(self, records: int) -> None:
        self.records = records
        self._status = np.zeros(records, dtype=np.uint8)
        self._attempts = np.zeros(records, dtype=np.int32)
        self._reasons = np.full(records, -1, dtype=np.int32)
        self._reason_list: list[tuple[str, str]] = []
        self._reason_numbers: dict[tuple[str, str], int] = {}
        self._given_up_after: int | None = None

    def fail(self, ordinal: int, code: str, message: str, attempts: int = 1) -> bool:
        """The record has failed for good; False where that, or better, is known already."""
        if self._status[self._checked(ordinal)] >= FAILED:
            return False
        self._status[ordinal] = FAILED
        self._attempts[ordinal] = attempts
        self._reasons[ordinal] = self._reason(code, message)
        return True

    def again(self, ordinal: int, code: str, message: str) -> bool:
        """The record is to be tried again, last for this reason; False where more is known already."""
        if self._status[self._checked(ordinal)] > AGAIN:
            return False
        self._status[ordinal] = AGAIN
        self._attempts[ordinal] = 1
        self._reasons[ordinal] = self._reason(code, message)
        return True

    def _checked(self, ordinal: int) -> int:
        if not 0 <= ordinal < self.records:
            raise ValueError(f"ordinal {ordinal} of a shard of {self.records} records")
        return ordinal

    def _reason(self, code: str, message: str) -> int:
        # Services fail by the thousand in the same words; each is kept once.
        reason = (code, message[:MESSAGE_CHARACTERS])
        number = self._reason_numbers.setdefault(reason, len(self._reason_list))
        if number == len(self._reason_list):
            self._reason_list.append(reason)
        return number

    @property
    def counts(self) -> RowCounts:
        unknown, again, failed, done = np.bincount(self._status, minlength=4).tolist()
        return RowCounts(done, failed, again, unknown)

    def ordinals_again(self, code: str | None = None) -> npt.NDArray[np.int64]:
        """Ordinals of the records to be tried again (for the reason `code`), ascending."""
        ordinals = np.flatnonzero(self._status == AGAIN)
        if code is None:
            return ordinals
        named = [number for number, reason in enumerate(self._reason_list) if reason[0] == code]
        return ordinals[np.isin(self._reasons[ordinals], named)]

    def unknown(self, ordinals: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those of `ordinals` of which nothing is known."""
        wanted = np.asarray(ordinals, dtype=np.int64)
        return wanted[self._status[wanted] == UNKNOWN]

    def reasons_again(self) -> dict[str, int]:
        """Why records are to be tried again: code → records, most first."""
        numbers, counts = np.unique(self._reasons[self._status == AGAIN], return_counts=True)
        totals: dict[str, int] = {}
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            code = self._reason_list[number][0]
            totals[code] = totals.get(code, 0) + count
        return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))

    def reasons_of(self, ordinals: npt.NDArray[np.int64]) -> dict[tuple[str, str], int]:
        """Why these records have no answer: (code, message) → records. Those of which nothing is known are left out."""
        told = ordinals[np.isin(self._status[ordinals], (AGAIN, FAILED))]
        numbers, counts = np.unique(self._reasons[told], return_counts=True)
        return {
            self._reason_list[number]: count
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
        }

    def count_failed(self, ordinals: npt.NDArray[np.int64]) -> int:
        """How many of these records have failed for good."""
        return int(np.count_nonzero(self._status[ordinals] == FAILED))

    def fail_no_more(self, ordinals: npt.NDArray[np.int64]) -> None:
        """Those of these records that have failed for good are to be tried again, for the reason that was told."""
        self._status[ordinals[self._status[ordinals] == FAILED]] = AGAIN

    def forget(self, ordinals: npt.NDArray[np.int64]) -> None:
        """What was to be tried again has been, so nothing is known of it."""
        self._status[ordinals[self._status[ordinals] == AGAIN]] = UNKNOWN

    def give_up(self, attempts: int) -> None:
        """What was to be tried again has failed for good, after so many attempts, for the reason known last.

        What nothing becomes known of is reported as failed for good too.
        """
        left = self._status == AGAIN
        self._attempts[left] = attempts
        self._status[left] = FAILED
        self._given_up_after = attempts

    def _failure(self, row: int, ordinal: int) -> Failure:
        status = self._status[ordinal]
        if status == UNKNOWN:
            final = self._given_up_after
            return Failure(
                row, MISSING, "the results have no line for this record", final or 1, retryable=final is None
            )
        code, message = self._reason_list[self._reasons[ordinal]]
        return Failure(row, code, message, int(self._attempts[ordinal]), retryable=bool(status == AGAIN))
