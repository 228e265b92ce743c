"""What Dagster has under way, queued runs included: so that nothing is asked for twice."""

from collections.abc import Mapping

import dagster as dg

UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
RUNS_LOOKED_AT = 200


def assets_under_way(instance: dg.DagsterInstance, tags: Mapping[str, str] | None = None) -> set[dg.AssetKey]:
    """The assets of all runs that are under way or queued; of those with these tags, if any are given."""
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED, tags=tags), limit=RUNS_LOOKED_AT)
    return {key for run in runs for key in run.asset_selection or ()}
