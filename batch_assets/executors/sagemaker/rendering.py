"""A job's input objects and its description, from a shard's records.

How a line is written and where objects are cut is in `requests.py`; when a job is rendered, in `control/`.
"""

import hashlib
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from batch_assets.errors import StorageError
from batch_assets.executors.deferred import Order
from batch_assets.executors.jobs import JobDescription, RequestFile, digest_of, runs_of
from batch_assets.executors.sagemaker.places import requests_folder
from batch_assets.executors.sagemaker.prices import most_usd
from batch_assets.executors.sagemaker.requests import TOO_LONG, Cut, InputObject, Lines, cut_records, suffix
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.reading import read_shard
from batch_assets.storage import Storage
from batch_assets.storage.threads import map_in_order, threads_for

if TYPE_CHECKING:
    from batch_assets.executors.sagemaker.executor import SageMakerExecutor


def render_job(executor: "SageMakerExecutor", shard: Shard, order: Order) -> JobDescription:
    """Upload the input objects of the records that `order` names and say what they are.

    Raises SourceError, StorageError, ConfigurationError.
    """
    options, narrowed = executor.options, order.narrowed or {}
    expected = shard.records if order.ordinals is None else len(order.ordinals)
    cut = Cut(options.objects_per_shard, expected, -(-shard.records // options.objects_per_shard), narrowed)
    lines = Lines.of(executor.settings.model, options)
    too_long: list[tuple[int, str]] = []
    records = read_shard(executor.settings, shard)
    objects = cut_records(records, lines, cut, order.ordinals, too_long)
    # Two deployments may share a staging area, a pipeline's name and a root's path: no file of one is the other's.
    folder = requests_folder(shard.key, order.fence, uuid.uuid4().hex[:8])
    pattern = f"{folder}/{shard.key}-{order.fence}-{{:05d}}{suffix(options.content_type)}"
    files, ordinals = _upload(executor.staging, folder, pattern, objects)
    return JobDescription(
        failing_since=order.failing_since,
        pipeline=executor.settings.name,
        shard=shard.key,
        fence=order.fence,
        attempt=order.attempt,
        # Without any record to be sent there is no job to wait for.
        kind="batch" if files else "on_demand",
        fingerprint=executor.fingerprint(),
        digest=digest_of(files),
        staging=executor.staging.uri,
        files=files,
        records=len(ordinals),
        bytes=sum(file.bytes for file in files),
        bound_usd=(most_usd(options) or 0.0) if files else 0.0,
        ordinals=runs_of(ordinals),
        narrowed={int(ordinal): times for ordinal, times in narrowed.items()},
        refused=[(ordinal, TOO_LONG, message) for ordinal, message in too_long],
        earlier=tuple(order.earlier),
        keep_fence=order.keep_fence,
        outdated_fence=order.outdated_fence,
    )


def _upload(
    storage: Storage, folder: str, pattern: str, objects: Iterator[InputObject]
) -> tuple[list[RequestFile], list[int]]:
    """Write the objects, several at a time; the files, and the ordinals of the records in them."""
    ordinals: list[int] = []
    begun: list[str] = []

    def numbered() -> Iterator[tuple[int, InputObject]]:
        for number, item in enumerate(objects):
            ordinals.extend(item.ordinals)
            yield number, item

    def write(item: tuple[int, InputObject]) -> RequestFile:
        number, found = item
        path, content = pattern.format(number), b"".join(found.lines)
        begun.append(path)
        storage.write(path, content)
        return RequestFile(path, len(found.lines), len(content), hashlib.sha256(content).hexdigest())

    try:
        files = list(map_in_order(write, numbered(), threads_for(storage)))
        _verify(storage, folder, files)
    except BaseException:
        storage.delete(begun)
        raise
    return files, ordinals


def _verify(storage: Storage, folder: str, files: list[RequestFile]) -> None:
    """A job is paid for by what lies in the bucket: that is looked at before the job is queued."""
    there = {info.path: info.size for info in storage.list(folder)} if files else {}
    asked = {file.path: file.bytes for file in files}
    if there != asked:
        raise StorageError(
            f"{storage.uri}/{folder}/: {len(asked)} objects of {sum(asked.values()):,} bytes were written, "
            f"{len(there)} of {sum(there.values()):,} bytes are there; try again"
        )
