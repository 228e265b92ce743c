"""What executors have in common whose jobs run at a service of AWS: region, clients, events of the queue."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from batch_assets.executors.aws.account import AwsAccount
from batch_assets.executors.aws.events import delete_events, receive_events
from batch_assets.executors.service_jobs import Event, ServiceJob
from batch_assets.settings.executors import ServiceSettings


class ServiceJobsAtAws(ABC):
    """One pipeline's jobs in one account."""

    account: AwsAccount
    options: cached_property[ServiceSettings]
    in_place: bool = False

    @cached_property
    def region(self) -> str:
        return self.account.region_of(self.options)

    def clients(self, service: str) -> tuple[Any, Any]:
        """One that tries again by itself, and one that tries nothing twice."""
        return self.account.client(service, self.region), self.account.client(service, self.region, tries=1)

    def exclusive_device(self) -> str | None:
        return None

    def events(self, most: int) -> list[Event]:
        """Events from the queue that the settings name, if they name one."""
        url = self.options.queue_url
        return [] if url is None else receive_events(self._sqs, url, most)

    def delete_events(self, events: Sequence[Event]) -> None:
        if self.options.queue_url is not None:
            delete_events(self._sqs, self.options.queue_url, events)

    @property
    def _sqs(self) -> Any:
        return self.account.client("sqs", self.region)

    @abstractmethod
    def look_up(self, job_id: str) -> ServiceJob | None: ...

    def whole(self, job: ServiceJob) -> ServiceJob | None:
        """The job with what it was asked: lists of some services tell less. None: it is forgotten."""
        return job if job.asked is not None else self.look_up(job.id)
