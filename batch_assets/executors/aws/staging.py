"""Where a pipeline's files for a batch service lie, and how a job of them is described.

What is in the files is each service's business; what jobs are called is in `names.py`.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import orjson

from batch_assets.embeddings.reason_codes import TOO_LONG
from batch_assets.errors import ConfigurationError
from batch_assets.executors.aws.names import Named
from batch_assets.executors.jobs import JobDescription, JobKind, RequestFile, digest_of, runs_of
from batch_assets.executors.service_jobs import Order
from batch_assets.settings.executor_base import S3_URI
from batch_assets.sharding.plan import Shard
from batch_assets.storage import Storage, join_uri, open_storage


class Staged(Named, ABC):
    """A pipeline whose files for the service lie on S3: its `staging`, else its output root."""

    service_name: str
    options: cached_property[Any]  # BatchServiceSettings; what has events, too, needs any service's

    @abstractmethod
    def fingerprint_parts(self) -> dict[str, Any]:
        """All that decides a vector, or an answer."""

    def fingerprint(self) -> str:
        content = orjson.dumps(self.fingerprint_parts(), option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(content).hexdigest()[:16]

    @cached_property
    def staging(self) -> Storage:
        """Where request and result files lie."""
        uri = self.options.staging
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

    def description_of(
        self,
        shard: Shard,
        order: Order,
        *,
        kind: JobKind,
        files: Sequence[RequestFile],
        ordinals: Sequence[int],
        too_long: Sequence[tuple[int, str]],
        bound_usd: float,
        first_id: int = 0,
    ) -> JobDescription:
        """The job whose requests are in `files`, of these `ordinals`; `too_long` were never sent, with the reason."""
        return JobDescription(
            pipeline=self.settings.name,
            shard=shard.key,
            fence=order.fence,
            attempt=order.attempt,
            kind=kind,
            fingerprint=self.fingerprint(),
            digest=digest_of(files),
            staging=self.staging.uri,
            files=files,
            records=len(ordinals),
            bytes=sum(file.bytes for file in files),
            bound_usd=bound_usd,
            ordinals=runs_of(ordinals),
            narrowed={int(ordinal): times for ordinal, times in (order.narrowed or {}).items()},
            refused=[(ordinal, TOO_LONG, message) for ordinal, message in too_long],
            earlier=tuple(order.earlier),
            keep_fence=order.keep_fence,
            first_id=first_id,
            outdated_fence=order.outdated_fence,
            failing_since=order.failing_since,
        )
