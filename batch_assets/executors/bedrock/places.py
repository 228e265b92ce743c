"""Where a pipeline's jobs lie in the staging area, and what they are called at the service.

What is in the files is written in `rendering.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from batch_assets import paths
from batch_assets.executors.aws.staging import Staged
from batch_assets.executors.jobs import JobDescription
from batch_assets.settings.bedrock import BedrockExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import join_uri


@dataclass
class JobPlaces(Staged):
    """The names and folders of one pipeline's jobs; nothing is asked of the service."""

    settings: PipelineSettings
    service_name = "Bedrock"

    @cached_property
    def options(self) -> BedrockExecutorSettings:
        assert isinstance(self.settings.executor, BedrockExecutorSettings)
        return self.settings.executor

    def folders(self, name: str, jobs: Sequence[JobDescription]) -> tuple[str, str]:
        """Where the requests of a submission lie and where its results go; never one within the other."""
        if len(jobs) == 1:
            return jobs[0].folder, f"{paths.job_folder(jobs[0].shard, jobs[0].fence)}/results"
        # Named as the first job's folder is too: nobody else's files come into it.
        first = min(jobs, key=lambda job: (job.shard, job.fence))
        number, own = (text.rsplit("-", 1)[-1] for text in (name, first.folder))
        folder = f"jobs/pools/{number}-{own}"
        return f"{folder}/requests", f"{folder}/results"

    def places(self, name: str, jobs: Sequence[JobDescription]) -> tuple[str, str]:
        """The same as URIs, as the service is told them."""
        requests, results = self.folders(name, jobs)
        staging = jobs[0].staging  # where the requests were uploaded, whatever the settings say by now
        return join_uri(staging, requests) + "/", join_uri(staging, results) + "/"

    def gather(self, jobs: Sequence[JobDescription], folder: str) -> None:
        """Copy the request files of small jobs into one folder: the service takes a folder as a job."""
        for job in jobs:
            for file in job.files:
                self.staging.copy(file.path, f"{folder}/{file.path.rsplit('/', 1)[-1]}")
