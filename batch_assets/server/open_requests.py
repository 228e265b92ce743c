"""How many requests of a pipeline are open, near enough to refuse one too many without a count at each."""

import threading
import time

from batch_assets.ledger.ledger import Ledger
from batch_assets.requests.account import read_account
from batch_assets.requests.database import RequestsDatabase
from batch_assets.server.pipelines import RequestPipeline

COUNTED_AGAIN_SECONDS = 1.0


class OpenRequests:
    """Counts each pipeline's once a second while requests come, and those accepted here since; threads may share it."""

    def __init__(self, database: RequestsDatabase, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger
        self._lock = threading.Lock()
        self._counted: dict[str, tuple[float, int]] = {}
        self._since: dict[str, int] = {}

    def has_room(self, pipeline: RequestPipeline, requests: int = 1) -> bool:
        """Whether so many more may come; False also where others are counted at the moment and nothing is known."""
        with self._lock:
            at, number = self._counted.get(pipeline.name, (float("-inf"), 0))
            number += self._since.get(pipeline.name, 0)
            return at > float("-inf") and number + requests <= pipeline.rules.max_open

    def is_due(self, pipeline: RequestPipeline) -> bool:
        """Whether they are to be counted again."""
        with self._lock:
            at, _ = self._counted.get(pipeline.name, (float("-inf"), 0))
            return time.monotonic() - at >= COUNTED_AGAIN_SECONDS

    def count(self, pipeline: RequestPipeline) -> None:
        """Count them: of what is accepted meanwhile some may be counted twice, until the next time."""
        with self._lock:
            before = self._since.get(pipeline.name, 0)
        number = read_account(self._database, self._ledger, pipeline.name).open
        with self._lock:
            self._counted[pipeline.name] = (time.monotonic(), number)
            self._since[pipeline.name] = self._since.get(pipeline.name, 0) - before

    def accepted(self, pipeline: RequestPipeline, requests: int) -> None:
        """So many have been accepted here."""
        with self._lock:
            self._since[pipeline.name] = self._since.get(pipeline.name, 0) + requests
