"""Where a pipeline's jobs lie in the staging area, and what they are called at the service.

What is in the files is written in `rendering.py`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from batch_assets import paths
from batch_assets.executors.aws.staging import Staged
from batch_assets.executors.jobs import JobDescription, JobKey
from batch_assets.settings.bedrock import BedrockExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings


@dataclass
class JobPlaces(Staged):
    """The names and folders of one pipeline's jobs; nothing is asked of the service."""

    settings: PipelineSettings
    service_name = "Bedrock"

    @cached_property
    def options(self) -> BedrockExecutorSettings:
        assert isinstance(self.settings.executor, BedrockExecutorSettings)
        return self.settings.executor

    def submission_name(self, jobs: Sequence[JobKey]) -> tuple[str, str]:
        """At most 63 characters. The digest is in it: a name met again means the same requests."""
        names = [f"{self.name_prefix}{job.shard}-{job.fence}-{job.digest[:6]}" for job in jobs]
        token = hashlib.sha256("\n".join([self.staging.uri, *sorted(names)]).encode()).hexdigest()
        return token, names[0] if len(names) == 1 else f"{self.name_prefix}pool-{token[:12]}"

    def folders(self, jobs: Sequence[JobDescription]) -> tuple[str, str]:
        """Where the requests of a submission lie and where its results go; never one within the other."""
        if len(jobs) == 1:
            return jobs[0].folder, f"{paths.job_folder(jobs[0].shard, jobs[0].fence)}/results"
        # Named as the first job's folder is too: nobody else's files come into it.
        number, own = (text.rsplit("-", 1)[-1] for text in (self._name(jobs), jobs[0].folder))
        folder = f"jobs/pools/{number}-{own}"
        return f"{folder}/requests", f"{folder}/results"

    def _name(self, jobs: Sequence[JobDescription]) -> str:
        return self.submission_name([job.key for job in jobs])[1]

    def gather(self, jobs: Sequence[JobDescription], folder: str) -> None:
        """Copy the request files of small jobs into one folder: the service takes a folder as a job."""
        for job in jobs:
            for file in job.files:
                self.staging.copy(file.path, f"{folder}/{file.path.rsplit('/', 1)[-1]}")
