"""Brings Dagster's picture in line with the ledger's truth, a bounded number of things at a time.

Who calls it when (a sensor's tick, a command's start) is theirs to say. Nothing here starts work.
"""

from collections.abc import Sequence

import dagster as dg
import orjson

from batch_assets.control.housekeeping import committed_marker
from batch_assets.errors import AccountingError, ConfigurationError, StorageError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import State
from batch_assets.orchestration import metadata
from batch_assets.orchestration.batches import batches_metadata
from batch_assets.orchestration.partitions import add_partitions
from batch_assets.paths import shard_generation, shard_order
from batch_assets.plain_text import plain_logger

MOST_OF_REQUESTS = 5_000
"""Partitions of a pipeline of requests; its results never depend on them."""
FORGOTTEN_AT_ONCE = 100
logger = plain_logger(__name__)


def report_dead_runs(instance: dg.DagsterInstance, ledger: Ledger, most: int = 20) -> list[str]:
    """Report runs failed whose process is gone from this host; the ids of those that were."""
    reported: list[str] = []
    for run_id in ledger.dead_runs(most):
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_failed(run, "its process is dead; its shards are free again")
            reported.append(run_id)
        ledger.forget_run(run_id)
    return reported


def missing_materializations(
    instance: dg.DagsterInstance, ledger: Ledger, most: int = 50
) -> list[dg.AssetMaterialization]:
    """Events for committed shards that Dagster does not show; those that it does are ticked off.

    To be reported by the caller: the next call finds them shown. Shards of an output root that
    cannot be read now are left for a later call.
    """
    events: list[dg.AssetMaterialization] = []
    unreadable: set[str] = set()
    for row in ledger.unpictured(most):
        key = dg.AssetKey([row.pipeline, "embedding_outputs"])
        if row.pipeline in unreadable:
            continue
        try:
            found = committed_marker(ledger, row)
        except AccountingError as error:
            logger.warning("%s: not shown as materialized: %s", row.pipeline, error)
            found = None
        except (StorageError, ConfigurationError) as error:
            logger.warning("%s: what is committed cannot be looked at: %s", row.pipeline, error)
            unreadable.add(row.pipeline)
            continue
        if found is None or _is_shown(instance, key, row):
            ledger.set_pictured(row.pipeline, [row.key])
            continue
        marker, uri = found
        know_partitions(instance, ledger, row.pipeline, [row.key])
        told = metadata.shard_metadata(marker, uri, ledger.story(row.pipeline, row.key))
        if takes_requests(ledger, row.pipeline):
            told |= batches_metadata(row.pipeline, row.key)
        events.append(dg.AssetMaterialization(key, partition=row.key, metadata=told))
    return events


def know_partitions(instance: dg.DagsterInstance, ledger: Ledger, pipeline: str, keys: Sequence[str]) -> None:
    """Make sure that Dagster knows all of `keys`; if not, tell it all of the pipeline's, in their order.

    It may not: they were planned under another Dagster home, or by a process that died in between.
    To look for one key takes the same time however many there are; for several, all are read.
    """
    name = f"{pipeline}_shards"
    if len(keys) == 1:
        known = instance.has_dynamic_partition(name, keys[0])
    else:
        known = set(keys) <= set(instance.get_dynamic_partitions(name))
    if not known:
        add_partitions(instance, pipeline, shown_keys(ledger, pipeline))


def shown_keys(ledger: Ledger, pipeline: str) -> list[str]:
    """The shards that are partitions: all of them, of a pipeline of requests the newest and what is not collected."""
    rows = ledger.shards(pipeline, superseded=True)
    if not takes_requests(ledger, pipeline):
        return [row.key for row in rows]
    return [
        row.key
        for place, row in enumerate(rows, start=1)
        if place > len(rows) - MOST_OF_REQUESTS or row.state is not State.COLLECTED
    ]


def takes_requests(ledger: Ledger, pipeline: str) -> bool:
    """Whether the pipeline's records are requests, by the settings with which it was opened last."""
    written = ledger.configuration(pipeline)
    return written is not None and orjson.loads(written)["source"].get("requests") is not None


def forget_partitions(instance: dg.DagsterInstance, ledger: Ledger, pipeline: str) -> int:
    """Take old shards of a pipeline of requests out of its partitions, a bounded number; how many.

    Those that are not kept any longer, and of too many the oldest collected ones: their files, and what the ledger
    says of them, stay.
    """
    name, row = f"{pipeline}_shards", ledger.pipeline(pipeline)
    known = instance.get_dynamic_partitions(name)
    oldest = sorted(known, key=shard_order)[:FORGOTTEN_AT_ONCE]
    too_many = set(oldest[: max(len(known) - MOST_OF_REQUESTS, 0)])
    states = {one.key: one.state for one in ledger.shards(pipeline, keys=oldest, superseded=True)}
    newest = row.generation if row is not None else 0
    gone = [
        key
        for key in oldest
        if (
            states[key] is State.COLLECTED and key in too_many
            if key in states
            else shard_generation(key) < newest
        )
    ]
    for key in gone:
        instance.delete_dynamic_partition(name, key)
    return len(gone)


def _is_shown(instance: dg.DagsterInstance, key: dg.AssetKey, row: ShardRow) -> bool:
    """Whether Dagster has a materialization of the shard since it was committed."""
    wanted = dg.AssetRecordsFilter(
        asset_key=key, asset_partitions=[row.key], after_timestamp=row.updated_at - 1
    )
    return bool(instance.fetch_materializations(wanted, limit=1).records)
