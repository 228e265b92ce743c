"""The verbs that executors at AWS have in common: hearing events, and making outcomes of fetched results."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.aws.events import Reader, delete_events, receive_events
from batch_assets.executors.base import JobHandle, PreparedJob
from batch_assets.executors.deferred import Event, ServiceJob
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.reading import read_shard


class _Queued(Protocol):
    @property
    def queue_url(self) -> str | None: ...


class _Hearing(Protocol):
    """What hearing events takes of an executor; `read_event` says of which job one is."""

    @property
    def account(self) -> AwsAccount: ...

    @property
    def region(self) -> str: ...

    @property
    def options(self) -> _Queued: ...

    @property
    def read_event(self) -> Reader: ...


class HearsEvents:
    """Events from the queue that an executor's settings name, if they name one."""

    def events(self: _Hearing, most: int) -> list[Event]:
        if self.options.queue_url is None:
            return []
        return receive_events(_sqs(self), self.options.queue_url, most, self.read_event)

    def delete_events(self: _Hearing, events: Sequence[Event]) -> None:
        if self.options.queue_url is not None:
            delete_events(_sqs(self), self.options.queue_url, events)


def _sqs(executor: _Hearing) -> Any:
    return executor.account.client("sqs", executor.region)


class _Fetching(Protocol):
    """What collecting results takes of an executor."""

    @property
    def settings(self) -> PipelineSettings: ...

    def fetch(
        self, job: PreparedJob, service_job: ServiceJob | None, rows: JobRows, facts: JobFacts, *, final: bool
    ) -> None: ...

    def look_up(self, job_id: str) -> ServiceJob | None: ...


class CollectsResults:
    """A job's outcomes by its results, whatever fetches them."""

    def collect(self: _Fetching, handle: JobHandle, facts: JobFacts) -> Iterator[Outcomes]:
        """The whole shard's outcomes from this one job; what should be tried again is a retryable failure."""
        started = time.perf_counter()
        shard = handle.prepared.shard
        with JobRows(shard.records) as rows:
            self.fetch(handle.prepared, self.look_up(handle.job_id), rows, facts, final=True)
            facts.timings["fetch_seconds"] = time.perf_counter() - started
            for records in read_shard(self.settings, shard):
                yield rows.outcomes(records)
