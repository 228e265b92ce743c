"""Requests leave by `source.requests.keep`: with the windows, the plan and the shards of their generation.

A generation goes once all of its shards have ended so long ago; the newest one stays. The order of steps lets nothing
be computed or counted twice, wherever the process dies: the ledger counts the shards no longer, the database of
requests does, then files go (windows before the plan that has them, so that none is planned again), and last what led
to them. A file that is not provably this pipeline's stays.
"""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

from batch_assets import paths
from batch_assets.control.cleanup import demand_ownership
from batch_assets.control.client_files import remove_client_files
from batch_assets.control.empty_folders import remove_empty_folders
from batch_assets.control.leases import exclusive, heartbeat
from batch_assets.control.own_files import OwnFiles, is_reached_directly
from batch_assets.control.pipeline import Pipeline
from batch_assets.control.retention import Kind, Leftover
from batch_assets.crash_points import crash_point
from batch_assets.errors import BatchAssetsError
from batch_assets.executors.service_jobs import has_results
from batch_assets.patience import is_ended
from batch_assets.plain_text import plain_logger
from batch_assets.requests.batches.store import BatchStore
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.planned import segments_of
from batch_assets.requests.recovering import read_window
from batch_assets.requests.removing import Removals
from batch_assets.requests.store import RequestStore
from batch_assets.sharding.plan_files import read_plan, read_summary
from batch_assets.sharding.removed import RemovedGenerations
from batch_assets.storage import Storage

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
    BatchStore(database).remove_ended(pipeline.name, before)
    remove_client_files(pipeline, database)
    row = pipeline.ledger.pipeline(pipeline.name)
    newest = row.generation if row is not None else 0
    ended = [one for one in pipeline.ledger.ended_generations(pipeline.name, before) if one < newest]
    due = sorted({*removals.begun(), *ended})
    if not due:
        return 0
    removed = 0
    with heartbeat(pipeline.ledger, pipeline.holder):
        for generation in due:
            if is_ended():
                break
            # Of its own for each: a merge need not wait for all of them.
            with exclusive(pipeline.ledger, f"merge:{pipeline.name}", pipeline.holder):
                demand_ownership(pipeline)
                until = before if generation in ended else float("inf")
                removed += _remove(pipeline, database, generation, until)
    return removed


def try_remove_expired(pipeline: Pipeline, database: RequestsDatabase) -> None:
    """The same as part of other work, which goes on where it cannot be done."""
    try:
        remove_expired(pipeline, database)
    except BatchAssetsError as error:
        logger.warning("%s: old requests are not removed now: %s", pipeline.name, error)


def _remove(pipeline: Pipeline, database: RequestsDatabase, generation: int, before: float) -> bool:
    """Remove one generation, or go on with it; False where it is at work again."""
    removals = Removals(database, pipeline.name)
    retired = pipeline.ledger.retire(pipeline.name, generation, before)
    if retired is None:
        return False
    crash_point("generation-retired")
    removals.begin(generation, retired.completed, retired.failed)
    crash_point("removal-begun")
    windows = removals.windows(generation)
    # Each of the two may have been lost meanwhile.
    shards = {one.shard for one in segments_of(database, pipeline.name, windows)}.union(retired.shards)
    for name in windows:
        # By its requests a window's file is known to be ours: they go after it.
        _delete_window(pipeline, database, name)
        removals.remove_requests(name)
    crash_point("windows-removed")
    RemovedGenerations.read(pipeline.storage).note(pipeline.storage, generation)
    _delete_plan(pipeline.storage, generation, shards)
    crash_point("plan-removed")
    for key in sorted(shards):
        _delete_shard(pipeline, key)
    crash_point("shards-removed")
    pipeline.ledger.forget(pipeline.name, generation)
    crash_point("generation-forgotten")
    removals.end(generation)
    return True


def _delete_window(pipeline: Pipeline, database: RequestsDatabase, name: str) -> None:
    """A window's file, if it holds the requests that the database has of it, in their order."""
    storage, path = pipeline.storage, f"{paths.WINDOWS}/{paths.window_file(name)}"
    info = storage.info(path)
    if info is None:
        return
    if is_reached_directly(storage, path):
        lines = read_window(storage.read(path)) or []
        ids = [one.id for one in RequestStore(database).in_window(pipeline.name, name, None)]
        if lines and [line.id for line in lines] == ids:
            storage.delete([path])
            remove_empty_folders(storage, [path], shallowest=2)
            return
    logger.warning("%s/%s: is not the window as it was sealed, and is left alone", storage.uri, path)


def _delete_plan(storage: Storage, generation: int, shards: Collection[str]) -> None:
    """A generation's plan, if it has the shards that are known of it, and its summary, if it is this plan's."""
    plan, summary_of_plan = paths.plan(generation), paths.plan_summary(generation)
    if storage.info(plan) is None:
        return  # the summary went before it
    ours: list[str] = []
    with suppress(BatchAssetsError, FileNotFoundError):
        summary, planned = read_plan(storage, generation)
        if {shard.key for shard in planned} == set(shards):
            ours.append(plan)
            found = read_summary(storage, generation)
            if found == replace(summary, files=found.files):
                ours.insert(0, summary_of_plan)
    for path in (summary_of_plan, plan):
        if path in ours and is_reached_directly(storage, path):
            storage.delete([path])
        else:
            logger.warning("%s/%s: is not as it was planned, and is left alone", storage.uri, path)


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
        remove_empty_folders(place, ours, shallowest=2)
