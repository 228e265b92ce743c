"""The verbs that executors at AWS have in common: hearing events, asking about jobs, collecting what was fetched."""

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.aws.events import delete_events, receive_events
from batch_assets.executors.base import JobHandle, JobState, JobStatus, PreparedJob
from batch_assets.executors.deferred import Event, ServiceJob
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.reading import read_shard


class _Queued(Protocol):
    @property
    def queue_url(self) -> str | None: ...


class _Hearing(Protocol):
    """What hearing events takes of an executor."""

    @property
    def account(self) -> AwsAccount: ...

    @property
    def region(self) -> str: ...

    @property
    def options(self) -> _Queued: ...


class HearsEvents:
    """Events from the queue that an executor's settings name, if they name one."""

    def events(self: _Hearing, most: int) -> list[Event]:
        if self.options.queue_url is None:
            return []
        return receive_events(_sqs(self), self.options.queue_url, most)

    def delete_events(self: _Hearing, events: Sequence[Event]) -> None:
        if self.options.queue_url is not None:
            delete_events(_sqs(self), self.options.queue_url, events)


def _sqs(executor: _Hearing) -> Any:
    return executor.account.client("sqs", executor.region)


class AsksService:
    """The truth about single jobs at a service whose jobs are listed, and their end by order.

    `service` has stop, jobs_since and get, see `sagemaker/service.py`.
    """

    service: cached_property[Any]

    def poll(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        jobs = {job.id: job for job in self.snapshot(None)}
        found = [jobs.get(handle.job_id) or self.look_up(handle.job_id) for handle in handles]
        return [
            JobStatus(handle, job.state, job.message)
            if job is not None
            else JobStatus(handle, JobState.FAILED, "the service does not know this job")
            for handle, job in zip(handles, found, strict=True)
        ]

    def cancel(self, handle: JobHandle) -> None:
        self.stop_job(handle.job_id)

    def stop_job(self, job_id: str) -> None:
        self.service.stop(job_id)

    def snapshot(self, since: float | None) -> list[ServiceJob]:
        return self.service.jobs_since(since)

    def look_up(self, job_id: str) -> ServiceJob | None:
        return self.service.get(job_id)


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
