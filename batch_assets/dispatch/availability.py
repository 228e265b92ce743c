"""Whether a server is well: after many failures in a row, one message at a time finds out whether it is again.

How many calls a server that is well takes is the window's to find (`gateway/window.py`).
"""

import math
import time
from collections.abc import Callable

from batch_assets.retry_policy import (
    CALL_FIRST_PAUSE_SECONDS,
    CALL_LONGEST_PAUSE_SECONDS,
    CALLS_FAILED_IN_A_ROW,
)


class Availability:
    """Fed with the end of each call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed_in_a_row = 0
        self._pauses = 0
        self._opens_at = 0.0

    @property
    def is_well(self) -> bool:
        return self._pauses == 0

    def room(self, in_hand: int) -> float:
        """How many more messages may be taken now, beside those in hand."""
        if self.is_well:
            return math.inf
        return max(0, 1 - in_hand) if self._clock() >= self._opens_at else 0

    def answered(self) -> bool:
        """The server has answered as it should; whether it was ill until now."""
        was_ill = not self.is_well
        self._failed_in_a_row = self._pauses = 0
        return was_ill

    def failed(self, in_flight: int, *, reached: bool) -> bool:
        """It has not; whether it is ill from now on. Nobody reached is enough, for nothing was tried."""
        self._failed_in_a_row += 1
        if reached and self._failed_in_a_row < max(CALLS_FAILED_IN_A_ROW, in_flight) and self.is_well:
            return False
        was_well = self.is_well
        if was_well or self._clock() >= self._opens_at:
            pause = min(CALL_FIRST_PAUSE_SECONDS * 2 ** min(self._pauses, 30), CALL_LONGEST_PAUSE_SECONDS)
            self._pauses += 1
            self._opens_at = self._clock() + pause
        return was_well
