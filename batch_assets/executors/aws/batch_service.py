"""A batch service at AWS: a pipeline's jobs there, which read requests from S3 and leave results there.

Each such executor says how a job is started, and by what it knows its own. Which job is submitted
when, and what follows from its end, is in `control/`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

from batch_assets.executors.aws.buckets import check_bucket
from batch_assets.executors.aws.job_calls import JobCalls
from batch_assets.executors.aws.service_jobs import ServiceJobsAtAws
from batch_assets.executors.aws.staging import Staged
from batch_assets.executors.jobs import JobDescription
from batch_assets.executors.service_jobs import NameTaken, ServiceJob, Unanswered


class BatchServiceAtAws(Staged, ServiceJobsAtAws, ABC):
    """See `service_jobs.BatchService` for the verbs. `taken` says that another's job has a name of ours."""

    commits: bool = False
    service: cached_property[JobCalls]
    taken: ClassVar[str]

    def at_once(self) -> int:
        return 1

    def check_bucket(self) -> None:
        """Raise ConfigurationError where the staging area's bucket is of no use to the service."""
        s3 = self.account.client("s3", self.region)
        check_bucket(s3, self.staging.uri, self.region, self.service_name)

    @abstractmethod
    def _start(self, jobs: Sequence[JobDescription], token: str, name: str) -> str:
        """Start the jobs in one call; its id. Raises SlotsFull, Unanswered, SubmissionRefused, NameTaken."""

    @abstractmethod
    def is_ours(self, job: ServiceJob, jobs: Sequence[JobDescription]) -> bool: ...

    def submit(self, jobs: Sequence[JobDescription], token: str, name: str) -> str:
        """One call for all `jobs`. Raises SlotsFull, Unanswered, SubmissionRefused, NameTaken."""
        try:
            return self._start(jobs, token, name)
        except NameTaken as error:
            found = self.find(name, jobs)
            if found is None:  # it is not to be seen yet whose the job is
                raise Unanswered(str(error)) from error
            return found.id

    def find(self, name: str, jobs: Sequence[JobDescription]) -> ServiceJob | None:
        found = self.service.find(name)
        if found is not None and not self.is_ours(found, jobs):
            raise NameTaken(self.taken.format(job=found))
        return found

    def is_same_model(self, job: ServiceJob) -> bool:
        """Whether it takes slots of ours: of our own jobs it is known, of others' a refusal tells."""
        return job.name.startswith(tuple(self.name_prefixes))

    def own_jobs(self) -> list[ServiceJob]:
        return [job for prefix in self.name_prefixes for job in self.service.named(prefix)]

    def list_jobs(self, since: float | None) -> list[ServiceJob]:
        return self.service.jobs_since(since)

    def look_up(self, job_id: str) -> ServiceJob | None:
        return self.service.get(job_id)

    def stop(self, job_id: str) -> None:
        self.service.stop(job_id)
