"""Calls about jobs that services have in common: one by its id, many by pages, their end by order.

Which calls those are, and what an answer means, each service's folder says.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from batch_assets.executors.aws.errors import cannot_ask, error_message
from batch_assets.executors.base import JobState
from batch_assets.executors.service_jobs import ServiceJob
from batch_assets.plain_text import plain_logger

logger = plain_logger(__name__)


def pages(
    list_jobs: Callable[..., dict[str, Any]], call: Mapping[str, Any], field: str, token: str = "nextToken"
) -> Iterator[dict[str, Any]]:
    """All that a list has in `field`, page after page."""
    call = dict(call)
    while True:
        answer = list_jobs(**call)
        yield from answer.get(field, ())
        if not answer.get(token):
            return
        call[token] = answer[token]


def state_of(job_id: str, status: str, states: Mapping[str, JobState]) -> JobState:
    """A service's status in this project's words."""
    if status not in states:
        logger.warning("job %s: status %r is not known; it counts as running", job_id, status)
    return states.get(status, JobState.RUNNING)


@dataclass
class JobCalls(ABC):
    """Jobs that a service tells of one by one, and lists by parts of their names.

    `service_name` is what people call it; to `may_ask` and to `may_stop` are the permissions that the calls need.
    """

    client: Any
    client_once: Any  # tries nothing twice: what it raises is about the one call that was made
    service_name: ClassVar[str]
    may_ask: ClassVar[str]
    may_stop: ClassVar[str]

    @abstractmethod
    def _describe(self, job_id: str) -> ServiceJob: ...

    @abstractmethod
    def _list(self, wanted: Mapping[str, Any]) -> Iterator[ServiceJob]:
        """The newest first, those `wanted` only."""

    @abstractmethod
    def _named(self, text: str) -> Mapping[str, Any]:
        """What is wanted of a list: names that contain `text`."""

    @abstractmethod
    def _stop(self, job_id: str) -> None: ...

    @abstractmethod
    def is_unknown(self, error: Exception) -> bool:
        """Whether the service does not know the job."""

    @abstractmethod
    def is_over(self, error: Exception) -> bool:
        """Whether a job was not stopped since it has ended, or is unknown."""

    def get(self, job_id: str) -> ServiceJob | None:
        """The truth about a job; None where the service does not know it. Raises Unanswered, SubmissionRefused."""
        try:
            return self._describe(job_id)
        except Exception as error:
            if self.is_unknown(error):
                return None
            raise cannot_ask(error, self.service_name, self.may_ask) from error

    @abstractmethod
    def find(self, name: str) -> ServiceJob | None:
        """The job of that name. Raises Unanswered, SubmissionRefused."""

    @abstractmethod
    def jobs_since(self, since: float | None) -> list[ServiceJob]:
        """Every job of the account submitted after `since` (unix seconds). Raises Unanswered, SubmissionRefused."""

    def named(self, prefix: str) -> list[ServiceJob]:
        """All jobs whose name begins so, whatever their state. Raises Unanswered, SubmissionRefused."""
        return [job for job in self.listed(self._named(prefix.strip("-"))) if job.name.startswith(prefix)]

    def listed(self, wanted: Mapping[str, Any]) -> list[ServiceJob]:
        """The newest first, those `wanted` only. Raises Unanswered, SubmissionRefused."""
        try:
            return list(self._list(wanted))
        except Exception as error:
            # Forbidden and malformed calls are a person's to mend; everything else may pass.
            raise cannot_ask(error, self.service_name, self.may_ask) from error

    def stop(self, job_id: str) -> None:
        """Stop a job; one that has ended, or is unknown, is left as it is. Raises Unanswered, SubmissionRefused."""
        try:
            self._stop(job_id)
        except Exception as error:
            if not self.is_over(error):
                raise cannot_ask(error, self.service_name, self.may_stop) from error
            logger.debug("job %s: not stopped: %s", job_id, error_message(error))
