"""Whether a pipeline, and a tenant of it, may have more requests, without a count in the database for each of them.

Of several servers each learns within a second what the others accept.
"""

import contextlib
import datetime
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from batch_assets.ledger.ledger import Ledger
from batch_assets.requests.account import read_account
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.tenants import accepted_today, open_by_tenant
from batch_assets.server.pipelines import RequestPipeline
from batch_assets.server.tokens import OPERATOR

COUNTED_AGAIN_SECONDS = 1.0
LEAST_SECONDS = 0.2
"""A count is not repeated before, however many requests find no room."""
RETRY_SECONDS = 5


@dataclass(frozen=True)
class NoRoom:
    """Why requests are not taken, and in how many seconds they may be."""

    reason: str
    retry_seconds: int = RETRY_SECONDS


@dataclass(frozen=True)
class _Count:
    """What was counted at `at` (monotonic seconds): in all, and by tenant where tenants are limited."""

    at: float = float("-inf")
    open: int = 0
    open_by_tenant: Counter[str] = field(default_factory=Counter)
    today_by_tenant: Counter[str] = field(default_factory=Counter)


class OpenRequests:
    """Counts each pipeline's once a second while requests come, and those accepted here since; threads may share it.

    Never too few of this server's: what is committed while they are counted may be counted twice, until the next time.
    """

    def __init__(self, database: RequestsDatabase, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._counted: dict[str, _Count] = {}
        self._since: dict[str, Counter[str]] = {}
        """Accepted since the count began, by tenant."""
        self._coming: dict[str, Counter[str]] = {}
        """Neither accepted yet nor refused, by tenant."""

    def no_room(self, pipeline: RequestPipeline, tenant: str, requests: int = 1) -> NoRoom | None:
        """Why a tenant may not have so many more; None where it may. Before the first count nobody may."""
        with self._lock:
            count = self._counted.get(pipeline.name)
            if count is None:
                return NoRoom(f"the open requests of pipeline {pipeline.name} are not counted yet")
            since = self._of(self._since, pipeline) + self._of(self._coming, pipeline)
            most = pipeline.rules.max_open
            if count.open + since.total() + requests > most:
                return NoRoom(
                    f"pipeline {pipeline.name} has max_open = {most:,} requests open; try again later"
                )
            if tenant == OPERATOR:
                return None
            limits = pipeline.rules.limits_of(tenant)
            if _exceeds(count.open_by_tenant[tenant] + since[tenant] + requests, limits.max_open):
                told = f"at most {limits.max_open:,} requests of tenant {tenant} may be open; try again later"
                return NoRoom(f"pipeline {pipeline.name}: {told}")
            today = count.today_by_tenant[tenant] + requests
            if _exceeds(today + since[tenant], limits.max_per_day):
                # What may have been counted twice costs nobody a day.
                is_sure = _exceeds(today, limits.max_per_day)
                told = f"tenant {tenant} may have {limits.max_per_day:,} requests accepted a day (UTC)"
                return NoRoom(
                    f"pipeline {pipeline.name}: {told}; try again {'tomorrow' if is_sure else 'later'}",
                    _seconds_left_today() if is_sure else RETRY_SECONDS,
                )
            return None

    def is_due(self, pipeline: RequestPipeline) -> bool:
        """Whether they are to be counted again."""
        with self._lock:
            return self._age(pipeline) >= COUNTED_AGAIN_SECONDS

    def count(self, pipeline: RequestPipeline) -> None:
        """Count them, unless that was done a moment ago."""
        # One at a time: each takes what came before it off what was accepted since, which is to happen once.
        with self._counting:
            with self._lock:
                if self._age(pipeline) < LEAST_SECONDS:
                    return
                before = self._of(self._since, pipeline).copy()
            counted = self._read(pipeline)
            with self._lock:
                self._counted[pipeline.name] = counted
                self._of(self._since, pipeline).subtract(before)

    def _read(self, pipeline: RequestPipeline) -> _Count:
        rules, name = pipeline.rules, pipeline.name
        limits = [rules.limits_of(tenant) for tenant in ("", *rules.tenants)]
        number = read_account(self._database, self._ledger, name).open
        by_tenant = Counter[str]()
        if any(one.max_open is not None for one in limits):
            by_tenant = open_by_tenant(self._database, self._ledger, name)
        today = Counter[str]()
        if any(one.max_per_day is not None for one in limits):
            today = accepted_today(self._database, name)
        return _Count(time.monotonic(), number, by_tenant, today)

    def _age(self, pipeline: RequestPipeline) -> float:
        return time.monotonic() - self._counted.get(pipeline.name, _Count()).at

    @contextlib.contextmanager
    def accepting(
        self, pipeline: RequestPipeline, tenant: str, requests: int
    ) -> Iterator[Callable[[int], None]]:
        """So many of a tenant are being accepted in the block, which tells how many of them were new."""

        def accepted(new: int) -> None:
            with self._lock:
                self._of(self._since, pipeline)[tenant] += new

        with self._lock:
            self._of(self._coming, pipeline)[tenant] += requests
        try:
            yield accepted
        finally:
            with self._lock:
                self._of(self._coming, pipeline)[tenant] -= requests

    @staticmethod
    def _of(counters: dict[str, Counter[str]], pipeline: RequestPipeline) -> Counter[str]:
        return counters.setdefault(pipeline.name, Counter())


def _exceeds(number: int, most: int | None) -> bool:
    return most is not None and number > most


def _seconds_left_today() -> int:
    now = datetime.datetime.now(datetime.UTC)
    midnight = (now + datetime.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return int((midnight - now).total_seconds()) + 1
