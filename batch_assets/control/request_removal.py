"""Requests leave by `source.requests.keep`: with the windows, the plan and the shards of their generation.

A generation goes once all of its shards have ended so long ago; the newest one stays. The order of steps lets nothing
be computed or counted twice, wherever the process dies: the ledger counts the shards no longer, the database of
requests does, then files go (windows before the plan that has them, so that none is planned again), and last what led
to them. A file that is not provably this pipeline's stays.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from batch_assets import paths
from batch_assets.control.cleanup import demand_ownership
from batch_assets.control.leases import exclusive, heartbeat
from batch_assets.control.own_files import OwnFiles
from batch_assets.control.pipeline import Pipeline
from batch_assets.control.retention import Kind, Leftover
from batch_assets.crash_points import crash_point
from batch_assets.errors import BatchAssetsError
from batch_assets.executors.service_jobs import has_results
from batch_assets.patience import is_ended
from batch_assets.plain_text import plain_logger
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.removing import GenerationFiles, Removals
from batch_assets.sharding.removed import RemovedGenerations
from batch_assets.storage import Storage, is_local

DESCRIPTIONS = (".json",)
"""What proves whose the files beside it are ends so, and goes last."""
logger = plain_logger(__name__)


def remove_expired(pipeline: Pipeline, database: RequestsDatabase) -> int:
    """Remove what is not to be kept any longer; how many generations went. Waits for a merge that goes on.

    Raises NotReady where this ledger is not the one that works on the root: nothing is removed there.
    """
    rules = pipeline.settings.source.requests
    assert rules is not None, pipeline.name
    before = pipeline.ledger.now() - rules.keep.total_seconds()
    removals = Removals(database, pipeline.name)
    removals.remove_cancelled(before)
    row = pipeline.ledger.pipeline(pipeline.name)
    newest = row.generation if row is not None else 0
    ended = [one for one in pipeline.ledger.ended_generations(pipeline.name, before) if one < newest]
    due = sorted({*removals.begun(), *ended})
    if not due:
        return 0
    demand_ownership(pipeline)
    removed = 0
    with heartbeat(pipeline.ledger, pipeline.holder):
        for generation in due:
            if is_ended():
                break
            # Of its own for each: a merge need not wait for all of them.
            with exclusive(pipeline.ledger, f"merge:{pipeline.name}", pipeline.holder):
                removed += _remove(
                    pipeline, removals, generation, before if generation in ended else float("inf")
                )
    return removed


def try_remove_expired(pipeline: Pipeline, database: RequestsDatabase) -> None:
    """The same as part of other work, which goes on where it cannot be done."""
    try:
        remove_expired(pipeline, database)
    except BatchAssetsError as error:
        logger.warning("%s: old requests are not removed now: %s", pipeline.name, error)


def _remove(pipeline: Pipeline, removals: Removals, generation: int, before: float) -> bool:
    """Remove one generation, or go on with it; False where it is at work again."""
    retired = pipeline.ledger.retire(pipeline.name, generation, before)
    if retired is None:
        return False
    crash_point("generation-retired")
    removals.begin(generation, retired.completed, retired.failed)
    crash_point("removal-begun")
    files = removals.files(generation)
    for name, _ in files.windows:
        removals.remove_requests(name)
    _delete_windows(pipeline.storage, files)
    crash_point("windows-removed")
    RemovedGenerations.read(pipeline.storage).note(pipeline.storage, generation)
    pipeline.storage.delete([paths.plan_summary(generation), paths.plan(generation)])
    crash_point("plan-removed")
    for key in files.shards:
        _delete_shard(pipeline, key)
    crash_point("shards-removed")
    pipeline.ledger.forget(pipeline.name, generation)
    crash_point("generation-forgotten")
    removals.end(generation)
    return True


def _delete_windows(storage: Storage, files: GenerationFiles) -> None:
    """The windows that are as they were sealed; others are somebody else's by now."""
    found: list[str] = []
    for name, size in files.windows:
        path = f"{paths.WINDOWS}/{paths.window_file(name)}"
        info = storage.info(path)
        if info is None:
            continue
        if info.size == size:
            found.append(path)
        else:
            logger.warning(
                "%s/%s: has %d bytes, and was sealed with %d; it is left alone",
                storage.uri,
                path,
                info.size,
                size,
            )
    storage.delete(found)
    _remove_empty_folders(storage, found, shallowest=2)


def _delete_shard(pipeline: Pipeline, key: str) -> None:
    """What lies under a shard's key, at the root and on the staging area, and is this pipeline's."""
    own, storage = OwnFiles(pipeline.storage), pipeline.storage
    staging = pipeline.executor.staging if has_results(pipeline.executor) else storage
    places = [(storage, f"jobs/{key}"), (storage, paths.shard_folder(key))]
    if staging.uri != storage.uri:
        # Before the descriptions under the root, which prove what lies there.
        places.insert(0, (staging, f"jobs/{key}"))
    for place, folder in places:
        found = [Leftover(Kind.SUPERSEDED, place, info.path, info.size, 0) for info in place.list(folder)]
        ours = [one.path for one in found if own.has_written(one)]
        place.delete([path for path in ours if not path.endswith(DESCRIPTIONS)])
        place.delete([path for path in ours if path.endswith(DESCRIPTIONS)])
        _remove_empty_folders(place, ours, shallowest=2)


def _remove_empty_folders(storage: Storage, files: Iterable[str], shallowest: int) -> None:
    """Folders that were left empty, as an object store would have it, down to so many parts."""
    if not is_local(storage.uri):
        return
    for folder in sorted({path.rpartition("/")[0] for path in files}, key=len, reverse=True):
        parts = folder.split("/")
        for depth in range(len(parts), shallowest - 1, -1):
            with suppress(OSError):
                os.rmdir(Path(storage.uri, *parts[:depth]))
