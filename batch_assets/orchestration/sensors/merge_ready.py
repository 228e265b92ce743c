"""`merge_ready`: requests the merge of a pipeline whose shards are all collected."""

import dagster as dg

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.orchestration.catalog import located_pipelines


def build_merge_ready() -> dg.SensorDefinition:
    """The one sensor of its kind, for all pipelines with `automation: true`."""

    @dg.sensor(
        name="merge_ready",
        asset_selection="*",
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Merges a pipeline with automation: true once all its shards are collected.",
    )
    def merge_ready(
        context: dg.SensorEvaluationContext, ledger: dg.ResourceParam[Ledger]
    ) -> dg.SensorResult | dg.SkipReason:
        requests: list[dg.RunRequest] = []
        for settings in located_pipelines(context):
            row = ledger.pipeline(settings.name)
            if not settings.automation or row is None or row.merged_revision == row.revision:
                continue
            counts = ledger.counts(settings.name)
            complete = counts[State.COLLECTED] == sum(counts.values()) > 0
            if complete and not ledger.totals(settings.name).stale_shards:
                # The revision in the key: a merge that failed is asked for again once something changed.
                requests.append(
                    dg.RunRequest(
                        run_key=f"{settings.name}:merge:{row.epoch}:{row.revision}",
                        asset_selection=[dg.AssetKey([settings.name, "merged_embeddings"])],
                    )
                )
        if not requests:
            return dg.SkipReason(
                "no pipeline with automation: true has all its shards collected and unmerged"
            )
        return dg.SensorResult(run_requests=requests)

    return merge_ready
