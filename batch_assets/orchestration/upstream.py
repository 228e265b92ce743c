"""The assets that make a pipeline's source: what of them its newest plan has not seen yet.

Pipelines that follow another one's shards do so by the ledger, in `control/chaining.py`.
"""

import dagster as dg

from batch_assets.settings.pipeline import PipelineSettings

SEEN_TAG = "dagster/input_event_pointer/"
"""Dagster's own, on a materialization: the newest event of an upstream asset when it was begun."""


def source_makers(settings: PipelineSettings) -> list[dg.AssetKey]:
    """The assets of others that make the source."""
    return [dg.AssetKey.from_user_string(name) for name in settings.deps]


def unseen_input(instance: dg.DagsterInstance, settings: PipelineSettings) -> str | None:
    """Names the materializations that came after the newest plan was begun; None where there are none."""
    makers, plan = source_makers(settings), dg.AssetKey([settings.name, "shard_plan"])
    if not makers:
        return None
    newest = {
        record.asset_entry.asset_key: record.asset_entry.last_materialization_record
        for record in instance.get_asset_records([plan, *makers])
    }
    planned = newest.get(plan)
    seen = (planned.asset_materialization.tags or {}) if planned and planned.asset_materialization else {}
    unseen = []
    for key in makers:
        made, pointer = newest.get(key), seen.get(SEEN_TAG + key.to_user_string(), "")
        if made is not None and (not pointer.isdigit() or int(pointer) < made.storage_id):
            unseen.append(f"{key.to_user_string()}:{made.storage_id}")
    return " ".join(unseen) or None
