"""When a database was last away from this process, and the grace that leases have after that.

While it is away nobody can renew a lease, and the time goes on. So whoever has waited takes nothing
at once that others held before: they have waited as well, and may be about to renew it.
"""

import math
import time

from batch_assets.retry_policy import GRACE_SECONDS, HEARTBEAT_SECONDS

# Counts on while the machine sleeps, where the system has such a clock; setting the date moves neither.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady() -> float:
    """Seconds by a clock that nobody sets."""
    return time.clock_gettime(_STEADY)


class Outage:
    """The last outage; two with less than GRACE_SECONDS between them are one.

    Threads may share it without a lock (which a fork might copy while it is taken): who speaks last is right.
    """

    def __init__(self) -> None:
        self._answered = -math.inf
        self._since: float | None = None
        self._back: float | None = None
        self._told = False
        self.given_up = False
        """Whether it was waited for in vain, so that it is asked once each time until it answers."""

    @property
    def has_answered(self) -> bool:
        """Whether the database has ever answered this process."""
        return self._answered > -math.inf

    def note_away(self) -> None:
        """The database does not answer, and may not have done so since it last did."""
        back = self._back
        if self._since is None or (back is not None and self._answered >= back + GRACE_SECONDS):
            self._since = self._answered
        self._back = None

    def begin_telling(self, tried: float) -> bool:
        """Note that a failed try of that moment (`steady`) is told.

        False, and nothing is to be told, where it was told before, or something later was answered.
        """
        news = not self._told and tried >= self._answered
        self._told = self._told or news
        return news

    def note_answer(self, asked: float) -> bool:
        """It answers what it was asked then (`steady`); whether it is to be told that it is back."""
        moment, told = steady(), self._told
        # Who has long held this one up, inside of a transaction, has held up everybody who was to renew a lease,
        # though not who only reads.
        if not self._lasts() and moment - asked >= HEARTBEAT_SECONDS:
            self._since, self._back = min(self._answered, asked), None
        if self._lasts():
            self._back = moment
        self._answered, self._told, self.given_up = moment, False, False
        return told

    def judged_at(self, now: float) -> float:
        """The time to judge leases by: `now`, but for a while after an outage that of its beginning."""
        since, back, moment = self._since, self._back, steady()
        if since is None or (back is not None and moment >= back + GRACE_SECONDS):
            return now
        return now - (moment - since)

    def _lasts(self) -> bool:
        return self._since is not None and self._back is None


_outages: dict[str, Outage] = {}


def outage_of(url_shown: str) -> Outage:
    """The outage of one database, shared by all that this process opens of it: a sensor's tick opens it anew."""
    return _outages.setdefault(url_shown, Outage())
