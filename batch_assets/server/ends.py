"""What is told of the end of a request or of a batch, and how such ends are noticed; they are sent by `webhooks.py`."""

import datetime
from typing import Any, Protocol

import orjson

from batch_assets.errors import BatchAssetsError
from batch_assets.requests.batches.store import Batch
from batch_assets.requests.batches.webhooks import BatchWebhooks
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.due_ends import DueEnd, DueEnds
from batch_assets.requests.results import CANCELLED, COMPLETED, FAILED, Results
from batch_assets.requests.store import Request
from batch_assets.requests.webhooks import Webhooks
from batch_assets.server.jobs import listed
from batch_assets.server.openai.batches import shown
from batch_assets.server.pipelines import RequestPipelines

WINDOWS_AT_ONCE = 100


class Ends(Protocol):
    """The ends of one kind."""

    @property
    def due(self) -> DueEnds[Any]:
        """Which of them are to be told, and to whom."""
        ...

    def look(self) -> None:
        """Note those that have come."""
        ...

    def message(self, end: DueEnd[Any]) -> bytes:
        """What is told of one."""
        ...


class NotEnded(BatchAssetsError):
    """The request is computed again meanwhile."""


class JobEnds:
    """The ends of single requests."""

    def __init__(self, database: RequestsDatabase, results: Results, pipelines: RequestPipelines) -> None:
        self.due = Webhooks(database)
        self._results = results
        self._pipelines = pipelines
        self._looked_at: dict[str, str] = {}

    def look(self) -> None:
        """See which requests have ended, of a bounded number of windows; the next look goes on behind them."""
        for pipeline in self._pipelines.names():
            windows = self.due.open_windows(pipeline, self._looked_at.get(pipeline, ""), WINDOWS_AT_ONCE)
            self._looked_at[pipeline] = windows[-1] if len(windows) == WINDOWS_AT_ONCE else ""
            self.due.note_ended(pipeline, self._results.ended_segments(pipeline, windows))

    def message(self, end: DueEnd[Request]) -> bytes:
        """The job without its result, which is asked for at `GET /job/ID`."""
        outcome = self._results.without_result(end.ended)
        if outcome.status not in (COMPLETED, FAILED, CANCELLED):
            raise NotEnded(end.id)
        told = {
            "type": f"job.{outcome.status}",
            "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "data": listed(end.ended, outcome.status) | {"error": outcome.error},
        }
        return orjson.dumps(told)


class BatchEnds:
    """The ends of batches, told as OpenAI tells them: its client's `webhooks.unwrap` reads them."""

    def __init__(self, database: RequestsDatabase) -> None:
        self.due = BatchWebhooks(database)

    def look(self) -> None:
        """An end is due from the moment when the batch ends."""

    def message(self, end: DueEnd[Batch]) -> bytes:
        """An event whose data is the batch."""
        told = {
            "id": f"evt_{end.id}",
            "object": "event",
            "type": f"batch.{end.ended.status}",
            "created_at": int(end.ended.ended_at or 0),
            "data": shown(end.ended),
        }
        return orjson.dumps(told)
