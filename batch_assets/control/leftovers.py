"""What a pipeline no longer needs, found by listing: which files, of which kind, since when.

Only files that are provably this pipeline's are ever named here: their names are exactly as this
program gives them, and the plan, a marker, a manifest or the file itself says that they are of this
root. Whatever else lies about stays. Descriptions of jobs, attempts and pools are small and stay
too: by them a lost ledger is rebuilt, and what was paid is counted. What becomes of the files is
decided in `cleanup.py`.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from functools import partial

from batch_assets import paths
from batch_assets.control.leftover_jobs import leftovers_of_jobs
from batch_assets.control.old_versions import old_versions
from batch_assets.control.own_files import OwnFiles
from batch_assets.control.pipeline import Pipeline
from batch_assets.control.retention import UNNAMED_SECONDS, Kind, Leftover, Times, leftover, modified
from batch_assets.control.settled import SettledShards
from batch_assets.embeddings.marker import ShardMarker
from batch_assets.executors.service_jobs import has_results
from batch_assets.sharding.plan_files import generations, read_plan
from batch_assets.sources.spool_files import is_spool
from batch_assets.storage import FileInfo, Storage
from batch_assets.storage.threads import map_in_order, threads_for

_DATA_FILE = re.compile(r"\.?(?:embeddings|failures)-(\d+)")


def find_due(pipeline: Pipeline, times: Times, now: float) -> Iterator[Leftover]:
    """The files that are due, kind by kind as they are listed; in each, what others rely on goes last."""
    shards = SettledShards(pipeline)
    storage = pipeline.storage
    staging = pipeline.executor.staging if has_results(pipeline.executor) else storage
    found: list[Iterator[Leftover]] = []
    if times.asks(Kind.REQUESTS, Kind.RESULTS, Kind.SUPERSEDED):
        judge = partial(leftovers_of_jobs, pipeline, shards)
        if staging.uri != storage.uri:
            # Before the descriptions under the root, which prove what lies there.
            found.append(_by_shard(staging, "jobs", times, judge))
        found.append(_by_shard(storage, "jobs", times, judge))
    if times.asks(Kind.RESULTS, Kind.SUPERSEDED):
        found.append(_by_shard(storage, "shards", times, partial(_of_shard, shards)))
    if times.asks(Kind.SPOOLS):
        found.append(_spools(pipeline, shards, times, now))
    if times.asks(Kind.MERGED):
        found.append(old_versions(storage, now))
    own = OwnFiles(storage)
    return (one for one in itertools.chain(*found) if times.due(one) and own.has_written(one))


Judge = Callable[[Storage, str, list[FileInfo]], list[Leftover]]


def _by_shard(storage: Storage, folder: str, times: Times, judge: Judge) -> Iterator[Leftover]:
    """Leftovers of one folder's files, whose second part says of which shard they are."""

    def look(item: tuple[str, list[FileInfo]]) -> list[Leftover]:
        return judge(storage, *item)

    grouped = itertools.groupby(storage.list(folder), key=lambda info: info.path.split("/")[1])
    # What is too young to be due needs no marker read.
    old = ((key, [info for info in files if modified(info) <= times.latest]) for key, files in grouped)
    for found in map_in_order(look, ((key, files) for key, files in old if files), threads_for(storage)):
        yield from found


def _of_shard(shards: SettledShards, storage: Storage, key: str, files: list[FileInfo]) -> list[Leftover]:
    """`shards/<shard>/…`: all of a shard that left the merge; else data that no commit names, and kept rows."""
    settled = shards.settled(key)
    if settled is None:
        return []
    if settled.marker is None:
        # What proves the others goes last.
        files = sorted(files, key=lambda info: info.path.endswith("/attempt.json"))
        return [leftover(Kind.SUPERSEDED, storage, info, settled.since) for info in files]
    found = (_in_shard(storage, settled.since, settled.marker, info) for info in files)
    return [one for one in found if one is not None]


def _in_shard(storage: Storage, since: float, marker: ShardMarker, info: FileInfo) -> Leftover | None:
    """The file of a committed shard, if it is left over: data that the commit does not name, or kept rows."""
    _, _, *rest = info.path.split("/")
    if len(rest) == 1:
        data = _DATA_FILE.match(rest[0])
        if data is None or any(file.path == info.path for file in marker.files):
            return None
        if int(data[1]) < 1:
            return None  # no claim has such a fence
        if int(data[1]) >= marker.fence:
            # Of an earlier claim nobody can commit it any more; of a later one somebody may be about to.
            since = max(since, modified(info) + UNNAMED_SECONDS)
        return leftover(Kind.SUPERSEDED, storage, info, since)
    # Their costs are in the marker by now; `attempt.json` beside them stays all the same.
    kept = rest[0] == "attempts" and len(rest) == 3 and rest[2].lstrip(".").startswith("rows.parquet")
    if kept and rest[1].isdigit() and int(rest[1]) <= marker.fence:
        return leftover(Kind.RESULTS, storage, info, since)
    return None


def _spools(pipeline: Pipeline, shards: SettledShards, times: Times, now: float) -> Iterator[Leftover]:
    """Spools of which every shard is settled, and those that no plan has named for a long time."""
    storage = pipeline.storage
    if pipeline.settings.source.format == "webdataset":
        return  # one that was made under a limit cannot be made again, and none of them is large
    listed = [info for info in storage.list("spool") if modified(info) <= times.latest]
    if not listed:
        return
    readers: dict[str, list[str]] = {}
    for generation in generations(storage):
        for shard in read_plan(storage, generation)[1]:
            if not shards.is_superseded(shard.key):
                for spool in {segment.spool for segment in shard.segments if segment.spool}:
                    readers.setdefault(paths.spool(spool), []).append(shard.key)
    for info in listed:
        keys = readers.get(info.path, [])
        # By the ledger first: it costs nothing to ask, and knows most of those that are not due.
        collected = [shards.collected_at(key) for key in keys]
        if any(at is None or at > times.until[Kind.SPOOLS] for at in collected):
            continue
        if any(one is None for one in map_in_order(shards.settled, keys, threads_for(storage))):
            continue
        since = max((at for at in collected if at is not None), default=float("-inf"))
        if not keys and (modified(info) > now - UNNAMED_SECONDS or not is_spool(storage, info.path)):
            continue
        yield leftover(Kind.SPOOLS, storage, info, since)
