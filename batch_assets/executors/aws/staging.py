"""Where a pipeline's files for a service lie, and how its jobs are named there.

What is in the files is each executor's business.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from batch_assets.errors import ConfigurationError
from batch_assets.executors.aws.errors import (
    common_step,
    error_code,
    status_code,
    told,
    unreachable,
)
from batch_assets.executors.jobs import JobKey
from batch_assets.plain_text import plain_logger
from batch_assets.settings.executor_base import S3_URI
from batch_assets.settings.executors import BatchServiceSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import Storage, join_uri, open_storage

ELSEWHERE = frozenset(
    {
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "IncorrectEndpoint",
    }
)
"""What S3 calls a bucket of another region."""
logger = plain_logger(__name__)


class Named:
    """The names of one pipeline's jobs at a service; nothing is asked of it.

    A service remembers names and tokens longer than an output root lives: `deployment`, random
    for each root, keeps a root's jobs apart from those of an earlier one at the same place.
    """

    settings: PipelineSettings
    deployment: str | None = None

    @cached_property
    def root_uri(self) -> str:
        return open_storage(self.settings.output.root).uri

    @property
    def root_digits(self) -> str:
        """Six hex digits of the output root's place."""
        return _digits(self.root_uri)

    def _prefix(self, digits: str) -> str:
        return f"{self.settings.name.replace('_', '-')}-{digits}-"

    @property
    def name_prefixes(self) -> list[str]:
        """How the names of this pipeline's jobs begin: of new ones, then of those from before ids were in them."""
        earlier = self._prefix(self.root_digits)
        if self.deployment is None:
            return [earlier]
        return [self._prefix(_digits(f"{self.root_uri}\n{self.deployment}")), earlier]

    def submission_name(self, jobs: Sequence[JobKey], prefix: str | None = None) -> tuple[str, str]:
        """(token, name); names have at most 63 of [a-zA-Z0-9-], tokens are hex digits.

        The digests are in both: what is met again means the same requests.
        """
        prefix = self.name_prefixes[0] if prefix is None else prefix
        told = sorted(f"{job.shard}-{job.fence}-{job.digest}" for job in jobs)
        token = hashlib.sha256(
            "\n".join([self.deployment or "", prefix, self.root_uri, *told]).encode()
        ).hexdigest()
        if len(jobs) > 1:
            return token, f"{prefix}pool-{token[:12]}"
        return token, f"{prefix}{jobs[0].shard}-{jobs[0].fence}-{jobs[0].digest[:6]}"


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


class Staged(Named):
    """A pipeline whose files for the service lie on S3: its `staging`, else its output root."""

    service_name: str

    @cached_property
    def staging(self) -> Storage:
        """Where request and result files lie."""
        executor = self.settings.executor
        assert isinstance(executor, BatchServiceSettings), executor.type
        uri = executor.staging
        if uri is None:
            uri = self.settings.output.root
            if not uri.startswith("s3://"):
                raise ConfigurationError(
                    f"executor.staging: output.root {uri} is not on S3, where {self.service_name} reads and writes; "
                    "name executor.staging: s3://bucket/prefix/"
                )
            return open_storage(uri)
        # A staging area may be shared: the root's own digits keep pipelines apart. Roots that follow each other at
        # one place share a folder, and no file: each job's have a name of their own.
        return open_storage(join_uri(uri, self._prefix(self.root_digits).rstrip("-")))

    def check_staging(self) -> None:
        """Raise ConfigurationError where the service could not be told of the staging area."""
        if not S3_URI.fullmatch(self.staging.uri):
            raise ConfigurationError(
                f"executor.staging: {self.staging.uri} has characters that {self.service_name} does not take (letters, "
                "digits and -!_*'(). only, so no Hive-style folders); name executor.staging: s3://bucket/prefix/"
            )


def check_bucket(s3: Any, uri: str, region: str, service_name: str) -> None:
    """Raise ConfigurationError where the bucket of `uri` is missing, forbidden, or in another region."""
    bucket = uri.removeprefix("s3://").split("/", 1)[0]
    try:
        answer = s3.head_bucket(Bucket=bucket)
    except Exception as error:
        if status_code(error) == 0:
            raise unreachable(error) from error
        reason = _reason(s3, bucket, error)
        if status_code(error) == 404:
            raise ConfigurationError(
                f"executor.staging: {told(reason)}; there is no bucket {bucket}; create it, or name another"
            ) from error
        if error_code(reason) in ELSEWHERE or status_code(reason) in (301, 307):
            headers: Any = getattr(reason, "response", {}).get("ResponseMetadata", {}).get("HTTPHeaders", {})
            found = headers.get("x-amz-bucket-region") or "another region"
            raise _wrong_region(bucket, f"{found} ({told(reason)})", region, service_name) from error
        if status_code(error) == 400:
            step = common_step(reason) or "correct it, or name another bucket"
            raise ConfigurationError(f"executor.staging: bucket {bucket}: {told(reason)}; {step}") from error
        # Forbidden to look at is not forbidden to write to: the upload will tell.
        logger.debug("bucket %s: %s", bucket, told(reason))
        return
    found = answer.get("BucketRegion")
    if found and found != region:
        raise _wrong_region(bucket, found, region, service_name)


def _reason(s3: Any, bucket: str, error: Exception) -> Exception:
    """Why the bucket could not be looked at: an answer to HEAD has no room for it, so it is asked for by a GET."""
    try:
        s3.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except Exception as reason:
        return error if status_code(reason) == 0 else reason
    return error


def _wrong_region(bucket: str, found: str, region: str, service_name: str) -> ConfigurationError:
    return ConfigurationError(
        f"executor.staging: bucket {bucket} is in {found}, jobs run in {region}, and {service_name} wants both in "
        "one; name a bucket there, or that region in executor.region"
    )
