"""A bucket as obstore reaches it: its endpoint, its credentials, and how often obstore itself tries.

What is asked of it is in `objects.py`, how often that is asked again in `reach.py`.
"""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from batch_assets.storage.credentials import s3_access
from batch_assets.storage.reach import Reach, patient_retries

_TOLD_BY = ("AWS_", "GOOGLE_", "AZURE_")
_ONCE: Any = {"max_retries": 0}
"""Each call is one try, so that it is known whether the answer to an earlier one was lost."""


@dataclass(frozen=True)
class Bucket:
    """One bucket: each call of `store` is one try, `patient` tries by itself, and `reach` knows whether it answers."""

    store: Any
    patient: Any
    reach: Reach


def bucket_of(scheme: str, bucket: str) -> Bucket:
    """One store of a bucket for the whole process, as long as its environment stays the same: it keeps connections."""
    told = sorted((name, value) for name, value in os.environ.items() if name.startswith(_TOLD_BY))
    # Connections do not outlive a fork.
    return _open_bucket(scheme, bucket, os.getpid(), tuple(told))


@functools.lru_cache(maxsize=64)
def _open_bucket(scheme: str, bucket: str, process: int, environment: tuple[tuple[str, str], ...]) -> Bucket:
    from obstore.store import AzureStore, GCSStore, S3Store

    kinds: dict[str, Any] = {"gs": GCSStore, "az": AzureStore}
    kind = kinds.get(scheme, S3Store)
    options: dict[str, Any] = {}
    credentials = None
    if kind is S3Store:
        access = s3_access(bucket)
        credentials = access.credentials
        if access.endpoint:
            options["endpoint"] = access.endpoint
        if access.allows_http:
            options["client_options"] = {"allow_http": True}
        if credentials is not None:
            options["credential_provider"] = credentials.for_obstore
        if access.region:
            options["region"] = access.region
    return Bucket(
        kind(bucket, **options, retry_config=_ONCE),
        kind(bucket, **options, retry_config=patient_retries()),
        _reach(scheme, process, environment, None if credentials is None else credentials.renew),
    )


@functools.lru_cache(maxsize=64)
def _reach(
    scheme: str, process: int, environment: tuple[tuple[str, str], ...], renew: Callable[[], None] | None
) -> Reach:
    """One for all buckets that lie behind one address."""
    return Reach(renew)
