"""The verbs that executors at AWS have in common: hearing events, asking about jobs."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.aws.events import delete_events, receive_events
from batch_assets.executors.deferred import Event, ServiceJob
from batch_assets.settings.executors import ServiceSettings


class _Hearing(Protocol):
    """What hearing events takes of an executor."""

    @property
    def account(self) -> AwsAccount: ...

    @property
    def region(self) -> str: ...

    @property
    def options(self) -> ServiceSettings: ...


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

    def stop_job(self, job_id: str) -> None:
        self.service.stop(job_id)

    def snapshot(self, since: float | None) -> list[ServiceJob]:
        return self.service.jobs_since(since)

    def look_up(self, job_id: str) -> ServiceJob | None:
        return self.service.get(job_id)
