"""A job's input objects and its description, from a shard's records.

How a line is written and where objects are cut is in `requests.py`; when a job is rendered, in `control/`.
"""

import hashlib
from collections.abc import Iterator

from batch_assets.errors import StorageError
from batch_assets.executors.aws.requests import own_digits
from batch_assets.executors.jobs import JobDescription, RequestFile
from batch_assets.executors.sagemaker.pipeline import SageMakerPipeline
from batch_assets.executors.sagemaker.places import requests_folder
from batch_assets.executors.sagemaker.prices import most_usd
from batch_assets.executors.sagemaker.requests import Cut, InputObject, Lines, cut_records, suffix
from batch_assets.executors.service_jobs import Order
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.reading import read_shard
from batch_assets.storage import Storage
from batch_assets.storage.threads import map_in_order, threads_for


def render_job(pipeline: SageMakerPipeline, shard: Shard, order: Order) -> JobDescription:
    """Upload the input objects of the records that `order` names and say what they are.

    Raises SourceError, StorageError, ConfigurationError.
    """
    options = pipeline.options
    expected = shard.records if order.ordinals is None else len(order.ordinals)
    first_size = -(-shard.records // options.objects_per_shard)
    cut = Cut(options.objects_per_shard, expected, first_size, order.narrowed or {})
    lines = Lines.of(pipeline.settings.model, options)
    too_long: list[tuple[int, str]] = []
    records = read_shard(pipeline.settings, shard)
    objects = cut_records(records, lines, cut, order.ordinals, too_long)
    folder = requests_folder(shard.key, order.fence, own_digits())
    pattern = f"{folder}/{shard.key}-{order.fence}-{{:05d}}{suffix(options.content_type)}"
    files, ordinals = _upload(pipeline.staging, folder, pattern, objects)
    return pipeline.description_of(
        shard,
        order,
        # Without any record to be sent there is no job to wait for.
        kind="batch" if files else "on_demand",
        files=files,
        ordinals=ordinals,
        too_long=too_long,
        bound_usd=(most_usd(options) or 0.0) if files else 0.0,
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
