"""Opens a bucket with obstore: its endpoint, its credentials, and how often obstore repeats a request by itself.

`objects.py` makes the requests, `reach.py` repeats them.
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
"""obstore repeats nothing, so that the caller knows whether the answer to an earlier try was lost."""


@dataclass(frozen=True)
class Bucket:
    """One bucket. `store` sends each request once; `patient` repeats requests by itself, for uploads in parts.

    `reach` repeats requests to `store`; buckets behind one address share it.
    """

    store: Any
    patient: Any
    reach: Reach


def bucket_of(scheme: str, bucket: str) -> Bucket:
    """Return the bucket. A process opens each one once, and again where its environment variables have changed."""
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
    """Return the one Reach that all buckets with this scheme, environment and credentials share."""
    return Reach(renew)
