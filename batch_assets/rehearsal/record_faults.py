"""What befalls single records: which error takes the place of a result, and which result is spoiled.

Drawn for a whole file at once, so that chance costs little. A refused record is refused
whenever it comes again, the others may fare better.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from batch_assets.rehearsal.faults import Scenario

# Name → errorCode, errorMessage, expired, retryable.
ERRORS: Mapping[str, tuple[int, str, bool, bool]] = {
    "throttled": (429, "Too many requests, please wait before trying again.", False, True),
    "internal": (500, "The system encountered an unexpected error during processing.", False, True),
    "timeout": (408, "Model has timed out in processing the request. Try your request again.", False, True),
    "expired": (400, "The record expired before it was processed.", True, True),
    "forbidden": (403, "You do not have access to the model with the specified model ID.", False, False),
}  # fmt: skip
REFUSED = (400, "This request has been blocked by our content filters.", False, False)
DAMAGES = ("bad_output", "missing_lines", "garbled_lines")


class RecordFaults:
    """The faults of one file's records, by their number in it."""

    def __init__(self, scenario: Scenario, job: str, file: str, records: int) -> None:
        self._scenario = scenario
        self._chance = np.random.default_rng(scenario.draw("records", job, file).getrandbits(64))
        rates = scenario.records
        self._errors = self._choose(records, [getattr(rates, name) for name in ERRORS])
        self._damages = self._choose(
            records, [rates.bad_output, scenario.output.missing_lines, scenario.output.garbled_lines]
        )
        self._bare = self._chance.random(records) < rates.bare_errors
        self._as_text = self._chance.random(records) < rates.code_as_text
        self.doubled = self._chance.random(records) < scenario.output.doubled_lines
        self.foreign = self._chance.random(records) < scenario.output.foreign_lines

    def _choose(self, records: int, chances: list[float]) -> npt.NDArray[np.int64]:
        """For each record the number of what befalls it; len(chances): nothing."""
        return np.searchsorted(np.cumsum(chances), self._chance.random(records), side="right")

    def order(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return self._chance.permutation(numbers) if self._scenario.output.shuffled else numbers

    def error(self, number: int, digest: bytes) -> dict[str, Any] | None:
        """The error that the record ends with, or None."""
        refused = int.from_bytes(digest[:6]) / 2**48 < self._scenario.records.refused
        if refused:
            return self.shaped(number, REFUSED)
        chosen = int(self._errors[number])
        return self.shaped(number, list(ERRORS.values())[chosen]) if chosen < len(ERRORS) else None

    def shaped(self, number: int, error: tuple[int, str, bool, bool]) -> dict[str, Any]:
        """An error as it stands in a result line; its form varies as it does at the service."""
        code, message, expired, retryable = error
        shaped: dict[str, Any] = {
            "errorCode": str(code) if self._as_text[number] else code,
            "errorMessage": message,
        }
        if not self._bare[number]:
            shaped |= {"expired": expired, "retryable": retryable}
        return shaped

    def damage(self, number: int) -> str | None:
        """What happens to the record's result: one of DAMAGES, or None."""
        chosen = int(self._damages[number])
        return DAMAGES[chosen] if chosen < len(DAMAGES) else None

    def spoil(self, output: dict[str, Any]) -> dict[str, Any]:
        """A model output that holds no usable vector."""
        way = int(self._chance.integers(3))
        if way == 0:
            return {
                name: value
                for name, value in output.items()
                if not name.startswith(("embedding", "content", "output"))
            }
        return {
            name: _spoiled(value, way) if isinstance(value, np.ndarray) else _spoiled_inside(value, way)
            for name, value in output.items()
        }

    def cut(self, line: bytes) -> bytes:
        """The line without its end, which makes it no JSON any more."""
        return line[: int(self._chance.integers(1, max(2, len(line) - 1)))]

    def tail_is_cut(self) -> bool:
        return bool(self._chance.random() < self._scenario.output.cut_tail)


def _spoiled(vector: npt.NDArray[Any], way: int) -> Any:
    return vector[:-1] if way == 1 else [None] * len(vector)


def _spoiled_inside(value: Any, way: int) -> Any:
    if isinstance(value, dict):
        return {
            name: _spoiled(item, way) if isinstance(item, np.ndarray) else item
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_spoiled_inside(item, way) for item in value]
    return value
