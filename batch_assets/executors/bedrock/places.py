"""Where a pipeline's jobs lie in the staging area, and what they are called at the service.

What is in the files is written in `rendering.py`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from batch_assets import paths
from batch_assets.errors import ConfigurationError
from batch_assets.executors.jobs import JobDescription, JobKey
from batch_assets.settings.bedrock import S3_URI, BedrockExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import Storage, join_uri, open_storage


@dataclass
class JobPlaces:
    """The names and folders of one pipeline's jobs; nothing is asked of the service."""

    settings: PipelineSettings

    @cached_property
    def options(self) -> BedrockExecutorSettings:
        assert isinstance(self.settings.executor, BedrockExecutorSettings)
        return self.settings.executor

    @cached_property
    def staging(self) -> Storage:
        """Where request and result files lie."""
        uri = self.options.staging
        if uri is None:
            uri = self.settings.output.root
            if not uri.startswith("s3://"):
                raise ConfigurationError(
                    f"executor.staging: output.root {uri} is not on S3, where Bedrock reads and writes; name "
                    "executor.staging: s3://bucket/prefix/"
                )
            return open_storage(uri)
        # A staging area may be shared: the root's own digits keep pipelines apart.
        return open_storage(join_uri(uri, f"{_slug(self.settings.name)}-{self.root_digits}"))

    def check_staging(self) -> None:
        """Raise ConfigurationError where Bedrock could not be told of the staging area."""
        if not S3_URI.fullmatch(self.staging.uri):
            raise ConfigurationError(
                f"executor.staging: {self.staging.uri} has characters that Bedrock does not take (letters, digits and "
                "-!_*'(). only, so no Hive-style folders); name executor.staging: s3://bucket/prefix/"
            )

    @cached_property
    def root_digits(self) -> str:
        """Six hex digits of the output root: they keep deployments apart at the service."""
        return hashlib.sha256(open_storage(self.settings.output.root).uri.encode()).hexdigest()[:6]

    @property
    def name_prefix(self) -> str:
        """How the names of all this pipeline's jobs begin at the service."""
        return f"{_slug(self.settings.name)}-{self.root_digits}-"

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


def _slug(name: str) -> str:
    """A pipeline's name as AWS names allow it."""
    return name.replace("_", "-")
