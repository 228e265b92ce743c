"""Runs of `embedding_outputs` for shards whose jobs have ended: few of them, for many shards each.

Which shards those are, the ledger says; who collects a shard is settled by its claim.
"""

import time
from collections.abc import Iterator, Sequence

import dagster as dg

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import State
from batch_assets.orchestration import metadata
from batch_assets.orchestration.mending import know_partitions
from batch_assets.orchestration.partitions import RANGE_END, RANGE_START, SHARDS_PER_RUN, range_tags
from batch_assets.paths import shard_order
from batch_assets.retry_policy import RUN_ASKED_AGAIN_SECONDS

RUNS_AT_ONCE = {"batch": 2, "on_demand": 1}  # what is called for one by one holds nothing else up
LOOKED_AT = 1_000
UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def collection_requests(
    instance: dg.DagsterInstance, ledger: Ledger, pipeline: str
) -> Iterator[dg.RunRequest]:
    """Runs for what has ended and no run under way is asked for, so few at once that they go fast.

    Jobs end out of order: a run's range may hold shards that have not ended, and leaves them.
    """
    rows = sorted(ledger.finished(pipeline, LOOKED_AT), key=lambda row: shard_order(row.key))
    for kind in RUNS_AT_ONCE:
        some = [row for row in rows if (row.state is State.READY) == (kind == "on_demand")]
        if some:
            yield from _requests(instance, ledger, pipeline, kind, some)


def _requests(
    instance: dg.DagsterInstance, ledger: Ledger, pipeline: str, kind: str, rows: Sequence[ShardRow]
) -> Iterator[dg.RunRequest]:
    runs = _under_way(instance, pipeline, kind)
    spans = [(run.tags.get(RANGE_START, ""), run.tags.get(RANGE_END, "")) for run in runs]
    ranges = [(shard_order(first), shard_order(last)) for first, last in spans if first and last]
    left = [row for row in rows if not any(first <= shard_order(row.key) <= last for first, last in ranges)]
    for group in list(_spans(left))[: max(RUNS_AT_ONCE[kind] - len(runs), 0)]:
        keys = [row.key for row in group]
        know_partitions(instance, ledger, pipeline, keys)
        newest = max(row.revision for row in group)
        yield dg.RunRequest(
            # What failed without changing anything is asked for again, ten minutes later.
            run_key=f"{pipeline}:{kind}:{keys[0]}:{keys[-1]}:{newest}:{int(time.time() // RUN_ASKED_AGAIN_SECONDS)}",
            asset_selection=[dg.AssetKey([pipeline, "embedding_outputs"])],
            tags={
                **range_tags(keys[0], keys[-1]),
                metadata.COLLECT_TAG: "finished",
                metadata.PIPELINE_TAG: pipeline,
                metadata.JOB_KIND_TAG: kind,
            },
        )


def _under_way(instance: dg.DagsterInstance, pipeline: str, kind: str) -> Sequence[dg.DagsterRun]:
    tags = {metadata.PIPELINE_TAG: pipeline, metadata.JOB_KIND_TAG: kind}
    return instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY, tags=tags), limit=RUNS_AT_ONCE[kind])


def _spans(rows: Sequence[ShardRow]) -> Iterator[list[ShardRow]]:
    """The rows in groups that a range of at most 100 shards holds."""
    group: list[ShardRow] = []
    for row in rows:
        near = (
            group
            and row.generation == group[0].generation
            and row.ordinal - group[0].ordinal < SHARDS_PER_RUN
        )
        if group and not near:
            yield group
            group = []
        group.append(row)
    if group:
        yield group
