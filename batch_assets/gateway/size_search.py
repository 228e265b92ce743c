"""Which size of a window is best, learned from what a server delivers at this size and at that.

The best size is the one of the greatest *power*, throughput / size ** EXPONENT: a larger window must pay for itself.
Behind k slots with a queue that is k exactly, for throughput grows with the size up to k and not at all above.

    climb   double while throughput grows in step; else Little's law tells the size that the server can use
    hold    measure the present size again and again, for longer and longer
    probe   try a size a little above, or below: keep it if it has more power, else return and hold

A refusal leads back to the size that was good, or to less. Nothing here waits, and time is only what callers say it is.
"""

from enum import Enum, auto
from math import ceil

FIRST_SIZE = 4
"""Few enough for any server, and enough to measure something."""
EXPONENT = 0.2
"""Twice the calls in flight must bring 2 ** 0.2 of the throughput, 15% more."""
IN_STEP = 0.6
"""Throughput grows in step with the size while it grows by this power of it: twice the calls bring 1.5 as much."""
PROBE_UP, PROBE_DOWN, PROBE_NEAR_CEILING = 1.25, 0.8, 1.1
DECREASE = 0.7
"""Refused at a size that was good before: TCP's halves, but answers of models are too dear to give so much away."""
CHANGED = 0.75
"""Throughput at the same size that falls below this share of what it was: the server has changed."""
USED = 0.9
"""A window that is on average emptier than this is larger than the demand: it tells nothing of the server."""
CLIMB_ERROR, PROBE_ERROR = 0.15, 0.03
"""How far off a measurement may be, as a share: a doubling shows at once, small steps only to the patient."""
MOST_MEASURED = 512
"""So many calls, or one flight where that is more, are enough however much they differ."""
LONGEST_HOLD = 32
"""Measurements between two probes: twice as many after each probe that was not kept, up to this."""
HOLD_AFTER_DECREASE = 2
"""The server has changed: what it takes now is worth finding out soon."""
LONGEST_HOLD_AFTER_REFUSAL = 64
"""Four times as many after a probe that was refused, for that costs calls and perhaps a pause of all."""


class Phase(Enum):
    """What the present size is being measured for."""

    CLIMB = auto()
    HOLD = auto()
    PROBE = auto()


class SizeSearch:
    """Give it each delivery and the refusals that count; `size` is what to use next."""

    def __init__(self, most: int) -> None:
        self.size = min(FIRST_SIZE, most)
        self._most = most
        self._phase = Phase.CLIMB
        self._good_size, self._good_rate = self.size, 0.0  # the best so far; 0: not measured yet
        self._ceiling = most + 1  # the size at which the server refused last
        self._upward = True
        self._hold = self._holds_left = 1
        self._size_before_blackout = self.size
        self._measure(0.0, 0.0, settle=0)

    def delivered(self, now: float, amount: float, seconds: float, call_seconds: float) -> None:
        """A call of `amount` took `seconds`; `call_seconds` is the integral of calls in flight over time."""
        if self._settling:
            self._settling -= 1
            if not self._settling:
                self._measure(now, call_seconds, settle=0)
            return
        self._count += 1
        self._amount += amount
        self._seconds += seconds
        self._squares += seconds * seconds
        if self._count >= self._enough:
            self._end_flight(now, call_seconds)

    def refused(self) -> None:
        """Calls at this size are refused, for the first time since it was last set."""
        self._ceiling = self.size
        if self.size > self._good_size:
            self._hold = min(4 * self._hold, LONGEST_HOLD_AFTER_REFUSAL)
            self._hold_at(self._good_size, self._hold)
        else:
            self._hold = HOLD_AFTER_DECREASE
            self._hold_at(int(self.size * DECREASE), self._hold)

    def is_away(self) -> None:
        """All calls are refused: from now on one alone asks whether the server is back."""
        if self.size > 1:
            self._size_before_blackout = self._good_size
        self._set(1)

    def is_back(self) -> None:
        """A call was delivered again: climb from half of what was good, as TCP does after a time-out."""
        self._phase, self._good_rate = Phase.CLIMB, 0.0
        self._set(max(1, self._size_before_blackout // 2))
        self._good_size = self.size

    # Measuring.

    def _measure(self, now: float, call_seconds: float, settle: int) -> None:
        self._settling = settle
        self._since, self._call_seconds_before = now, call_seconds
        self._count, self._amount, self._seconds, self._squares = 0, 0.0, 0.0, 0.0
        error = CLIMB_ERROR if self._phase is Phase.CLIMB else PROBE_ERROR
        self._enough = ceil(1 / error / self.size) * self.size

    def _set(self, size: int) -> None:
        """What was sent at the size before, and the burst that fills a larger window, are not measured."""
        settle = max(size, self.size)
        self.size = max(1, min(size, self._most))
        self._measure(0.0, 0.0, settle)

    def _end_flight(self, now: float, call_seconds: float) -> None:
        elapsed = now - self._since
        if call_seconds - self._call_seconds_before < USED * self.size * elapsed:
            self._is_unused(now, call_seconds)
            return
        mean = self._seconds / self._count
        variance = max(0.0, self._squares / self._count - mean * mean)
        error = CLIMB_ERROR if self._phase is Phase.CLIMB else PROBE_ERROR
        if self._count < MOST_MEASURED and variance > self._count * (error * mean) ** 2:
            self._enough += self.size  # too uncertain yet: another flight
        elif elapsed > 0:
            rate = self._amount / elapsed
            self._measure(now, call_seconds, settle=0)
            self._judge(rate)

    def _is_unused(self, now: float, call_seconds: float) -> None:
        if self.size > self._good_size:
            self._turn_back()
        else:
            self._measure(now, call_seconds, settle=0)

    # Judging.

    def _judge(self, rate: float) -> None:
        if self._phase is Phase.CLIMB:
            self._climb(rate)
        elif self._phase is Phase.HOLD:
            self._remeasure(rate)
        elif rate * self._good_size**EXPONENT >= self._good_rate * self.size**EXPONENT:
            self._keep(rate)
        else:
            self._turn_back()

    def _turn_back(self) -> None:
        """Return to the good size, and probe later and in the other direction."""
        self._hold = max(self._hold, min(2 * self._hold, LONGEST_HOLD))
        self._upward = not self._upward
        self._hold_at(self._good_size, self._hold)

    def _climb(self, rate: float) -> None:
        if self._good_rate and not self._is_in_step(rate):
            # Little's law: as many calls as would be in flight at this throughput with the latency of before.
            usable = round(self._good_size * max(1.0, rate / self._good_rate))
            self._upward = usable > self._good_size
            self._hold_at(usable, 1)
            return
        self._good_size, self._good_rate = self.size, rate
        larger = min(2 * self.size, self._most)
        if larger == self.size or larger >= self._ceiling:
            self._hold_at(self.size, self._hold)
        else:
            self._set(larger)

    def _is_in_step(self, rate: float) -> bool:
        return rate / self._good_rate >= (self.size / self._good_size) ** IN_STEP

    def _remeasure(self, rate: float) -> None:
        change = rate / self._good_rate if self._good_rate else 1.0
        self._good_rate = rate
        self._holds_left -= 1
        if change < CHANGED:
            self._upward = False
            self._probe(round(self.size * change))
        elif change > 1 / CHANGED:
            self._upward = True
            self._probe(self._next_probe())
        elif self._holds_left <= 0:
            self._probe(self._next_probe())

    def _next_probe(self) -> int:
        if not self._upward:
            return min(self.size - 1, round(self.size * PROBE_DOWN))
        larger = round(self.size * PROBE_UP)
        if larger >= self._ceiling:
            larger = round(self.size * PROBE_NEAR_CEILING)
        return max(self.size + 1, larger)

    def _probe(self, size: int) -> None:
        if not 1 <= size <= self._most:
            self._turn_back()
        else:
            self._phase = Phase.PROBE
            self._set(size)

    def _keep(self, rate: float) -> None:
        """Go on in the same direction; in great strides again where throughput grew in step and nothing was refused."""
        in_step = self.size > self._good_size and self._is_in_step(rate)
        self._good_size, self._good_rate = self.size, rate
        self._hold = 1
        if self.size >= self._ceiling:
            self._ceiling = self._most + 1
        if in_step and 2 * self.size < self._ceiling:
            self._phase = Phase.CLIMB
            self._set(2 * self.size)
        else:
            self._probe(self._next_probe())

    def _hold_at(self, size: int, measurements: int) -> None:
        self._phase, self._holds_left = Phase.HOLD, measurements
        if size != self._good_size:
            self._good_rate = 0.0
        self._set(size)
        self._good_size = self.size
