"""How many requests of a pipeline are open, near enough to refuse one too many without a count at each."""

import threading
import time

from batch_assets.ledger.ledger import Ledger
from batch_assets.requests.account import read_account
from batch_assets.requests.database import RequestsDatabase
from batch_assets.server.pipelines import RequestPipeline

COUNTED_AGAIN_SECONDS = 1.0
LEAST_SECONDS = 0.2
"""A count is not repeated before, however many requests find no room."""


class OpenRequests:
    """Counts each pipeline's once a second while requests come, and those accepted here since; threads may share it."""

    def __init__(self, database: RequestsDatabase, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._counted: dict[str, tuple[float, int]] = {}
        self._since: dict[str, int] = {}

    def has_room(self, pipeline: RequestPipeline, requests: int = 1) -> bool:
        """Whether so many more may come; False before the first count."""
        with self._lock:
            at, number = self._counted.get(pipeline.name, (float("-inf"), 0))
            number += self._since.get(pipeline.name, 0)
            return at > float("-inf") and number + requests <= pipeline.rules.max_open

    def is_due(self, pipeline: RequestPipeline) -> bool:
        """Whether they are to be counted again."""
        with self._lock:
            return self._age(pipeline) >= COUNTED_AGAIN_SECONDS

    def count(self, pipeline: RequestPipeline) -> None:
        """Count them, unless that was done a moment ago: of what is accepted meanwhile some may be counted twice."""
        # One at a time: each takes what came before it off what was accepted since, which is to happen once.
        with self._counting:
            with self._lock:
                if self._age(pipeline) < LEAST_SECONDS:
                    return
                before = self._since.get(pipeline.name, 0)
            number = read_account(self._database, self._ledger, pipeline.name).open
            with self._lock:
                self._counted[pipeline.name] = (time.monotonic(), number)
                self._since[pipeline.name] = self._since.get(pipeline.name, 0) - before

    def _age(self, pipeline: RequestPipeline) -> float:
        return time.monotonic() - self._counted.get(pipeline.name, (float("-inf"), 0))[0]

    def accepted(self, pipeline: RequestPipeline, requests: int) -> None:
        """So many have been accepted here."""
        with self._lock:
            self._since[pipeline.name] = self._since.get(pipeline.name, 0) + requests
