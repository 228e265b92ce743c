"""`merge_ready`: requests the merges that are due, as `merge_when` says: else of pipelines with all shards collected.

Acts only for pipelines with `automation: true`, and for others while an order to start them is open.
"""

import time

import dagster as dg

from batch_assets.control.alerts import is_blocked
from batch_assets.control.merge_time import merge_due
from batch_assets.control.triggers import standing, unattended
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.triggers import TriggerState
from batch_assets.orchestration.catalog import OWN_ASSETS, located_pipelines
from batch_assets.orchestration.under_way import assets_under_way
from batch_assets.patience import in_a_tick
from batch_assets.retry_policy import MERGE_ASKED_AGAIN_BY_ORDER_SECONDS, MERGE_ASKED_AGAIN_SECONDS
from batch_assets.settings.pipeline import PipelineSettings


def build_merge_ready() -> dg.SensorDefinition:
    """The one sensor of its kind, for all pipelines."""

    @dg.sensor(
        name="merge_ready",
        asset_selection=OWN_ASSETS,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Merges a pipeline with automation: true, or an open order to start it, once all its shards "
        "are collected, or as its merge_when says.",
    )
    @in_a_tick()
    def merge_ready(
        context: dg.SensorEvaluationContext, batch_assets_ledger: dg.ResourceParam[Ledger]
    ) -> dg.SensorResult | dg.SkipReason:
        ledger = batch_assets_ledger
        requests: list[dg.RunRequest] = []
        for settings in located_pipelines(context):
            begun = any(order.state is TriggerState.RUNNING for order in unattended(ledger, settings.name))
            if not (settings.automation or begun):
                continue
            key = merge_due(settings, ledger) or (_due_by_order(settings, ledger) if begun else None)
            if key is None:
                continue
            merged = dg.AssetKey([settings.name, "merged_embeddings"])
            # What blocks publishing is mended by a change alone, of the shards or the settings; an order fails of it.
            if begun or not is_blocked(ledger, settings.name):
                if merged in assets_under_way(context.instance):
                    continue
                after = MERGE_ASKED_AGAIN_BY_ORDER_SECONDS if begun else MERGE_ASKED_AGAIN_SECONDS
                key += f":{int(time.time() // after)}"
            else:
                key += f":{settings.max_failed_fraction:g}:{settings.parity_mode}"
            requests.append(dg.RunRequest(run_key=key, asset_selection=[merged]))
        if not requests:
            return dg.SkipReason(
                "no pipeline with automation: true, or an order to start it, is to be merged now"
            )
        return dg.SensorResult(run_requests=requests)

    return merge_ready


def _due_by_order(settings: PipelineSettings, ledger: Ledger) -> str | None:
    """Key of the merge of what there is, where nothing more will come and `merge_when` is for whoever asks."""
    found = standing(ledger, settings.name)
    if settings.merge_when != "any" or found is None or found.unfinished or found.merged:
        return None
    return f"{settings.name}:merge:{found.row.epoch}:{found.row.revision}" if found.counts else None
