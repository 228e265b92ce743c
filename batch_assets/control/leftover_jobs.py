"""What jobs at services leave behind under `jobs/`: request files, raw results, manifests of workers.

Descriptions of jobs and pools stay: by them a lost ledger is rebuilt. What lies elsewhere is in
`leftovers.py`.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import orjson

from batch_assets import paths
from batch_assets.control.pipeline import Pipeline, deferred
from batch_assets.control.pool_files import Member, read_pool
from batch_assets.control.retention import Kind, Leftover, leftover
from batch_assets.control.settled import SettledShards
from batch_assets.storage import FileInfo, Storage


def leftovers_of_jobs(
    pipeline: Pipeline, shards: SettledShards, storage: Storage, key: str, files: list[FileInfo]
) -> list[Leftover]:
    """`jobs/<shard>/<fence>/…`: request files and results; of what shares a job, see `_of_pool`."""
    if key == "pools":
        folders = itertools.groupby(files, key=lambda info: info.path.split("/")[2])
        return [one for name, some in folders for one in _of_pool(pipeline, shards, storage, name, some)]
    if key == "manifests":
        return [
            leftover(Kind.REQUESTS, storage, info, _manifest_settled(storage, shards, info)) for info in files
        ]
    settled = shards.settled(key)
    if settled is None:
        return []
    # Bedrock's manifest first: the results beside it prove that it is ours.
    files = sorted(files, key=lambda info: not info.path.endswith(f"/{paths.RESULTS_MANIFEST}"))
    if settled.marker is None:
        # Its description stays: a job that it shares a submission with may count yet.
        others = (info for info in files if not info.path.endswith("/job.json"))
        return [leftover(Kind.SUPERSEDED, storage, info, settled.since) for info in others]
    found: list[Leftover] = []
    for info in files:
        _, _, fence, *rest = info.path.split("/")
        kind = _kind_of(rest[0]) if rest and fence.isdigit() else None
        # A later job than the committed one: somebody rendered it, and it may be at the service.
        if kind is not None and int(fence) <= settled.marker.fence:
            found.append(leftover(kind, storage, info, settled.since))
    return found


def _kind_of(name: str) -> Kind | None:
    """What lies in a job's folder under this name; None for its description, and for what is not known."""
    if name.startswith("results"):
        return Kind.RESULTS
    return Kind.REQUESTS if name.startswith("requests") else None


def _of_pool(
    pipeline: Pipeline, shards: SettledShards, storage: Storage, name: str, files: Iterable[FileInfo]
) -> Iterator[Leftover]:
    """`jobs/pools/<number>-<own>/…`: the files of jobs that share a submission, once all of them are settled."""
    since = None
    for info in files:
        rest = info.path.split("/")[3:]
        kind = _kind_of(rest[0]) if rest else None
        if kind is None:
            continue
        if since is None:
            since = _pool_settled(pipeline, shards, name.partition("-")[0])
        yield leftover(kind, storage, info, since)


def _pool_settled(pipeline: Pipeline, shards: SettledShards, number: str) -> float:
    """Since when all jobs of a pool are settled; infinity where they are not, or the pool is not known."""
    # A pipeline that computes here now names no jobs: of what it left at a service before, pools stay.
    prefixes = () if pipeline.executor.in_place else deferred(pipeline).name_prefixes
    for prefix in prefixes:
        if members := read_pool(pipeline.storage, f"{prefix}pool-{number}"):
            return _all_settled(shards, members)
    return float("inf")


def _manifest_settled(storage: Storage, shards: SettledShards, info: FileInfo) -> float:
    """Since when all that one submission's workers were to do is settled; infinity where it is not."""
    found = storage.read_versioned(info.path)
    return _all_settled(shards, _assigned(found[0]) if found is not None else [])


def _assigned(content: bytes) -> list[Member]:
    """The jobs that a manifest of workers names; none where it is not understood, so that all of it stays."""
    try:
        return [(str(one["shard"]), int(one["fence"])) for one in orjson.loads(content)["assignments"]]
    except (ValueError, KeyError, TypeError):
        return []


def _all_settled(shards: SettledShards, jobs: Sequence[Member]) -> float:
    """Since when all these jobs are settled; infinity where one is not, or there are none."""
    latest = float("-inf")
    for key, fence in jobs:
        settled = shards.settled(key)
        if settled is None or (settled.marker is not None and fence > settled.marker.fence):
            return float("inf")
        latest = max(latest, settled.since)
    return latest if jobs else float("inf")
