"""What goes wrong at the model: whose fault it is, and when it is no single record's any more."""

import threading
from collections.abc import Callable

from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import RECORDS_FAILED_IN_A_ROW

MESSAGE_LENGTH = 500
_OUT_OF_MEMORY = (
    "out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_failed",
)  # fmt: skip

logger = plain_logger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch could have succeeded; PyTorch says so in several ways."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY)


def describe(error: BaseException) -> str:
    """An error's type and text on one line, trimmed."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 1] + "…"


class Budget:
    """Tokens in a batch, padding included: halved where memory runs out, and never raised again.

    `records` are the most records in a batch, or None.
    """

    def __init__(self, tokens: int, records: int | None = None) -> None:
        self.tokens, self.records = tokens, records
        self._lock = threading.Lock()

    def allows(self, records: int, longest: int) -> bool:
        """Whether so many records, the longest of so many tokens, may go into one batch."""
        return records * longest <= self.tokens and (self.records is None or records <= self.records)

    def lower(self, failed: int) -> None:
        """Note that a batch of `failed` tokens did not fit."""
        with self._lock:
            lowered = max(1, min(self.tokens, failed // 2))
            if lowered < self.tokens:
                logger.warning("out of memory with a batch of %d tokens; going on with %d", failed, lowered)
                self.tokens = lowered


class Breaker:
    """Tells records that fail from a model or device that does: then every record would.

    When RECORDS_FAILED_IN_A_ROW single records have failed without a success between them, whoever
    reports the last one is asked whether the model still works.
    """

    def __init__(self) -> None:
        self.succeeded = False
        self._lock = threading.Lock()
        self._in_a_row = 0

    def success(self) -> None:
        with self._lock:
            self._in_a_row, self.succeeded = 0, True

    def failure(self, error: Exception, works: Callable[[], bool]) -> None:
        """Count the failure of one record. Raises `error` where it is not the record's: `works` says no."""
        with self._lock:
            self._in_a_row += 1
            if self._in_a_row < RECORDS_FAILED_IN_A_ROW:
                return
            if not works():
                raise error
            self._in_a_row = 0
