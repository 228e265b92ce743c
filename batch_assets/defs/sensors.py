"""The sensors of this deployment: one of each kind, for all its pipelines."""

import dagster as dg

from batch_assets.orchestration.sensors.failure_notification import build_failure_notification
from batch_assets.orchestration.sensors.job_completion import build_job_completion
from batch_assets.orchestration.sensors.merge_ready import build_merge_ready
from batch_assets.orchestration.sensors.new_input import build_new_input


@dg.definitions
def sensors() -> dg.Definitions:
    """Sensors that need no cloud."""
    return dg.Definitions(
        sensors=[
            build_new_input(),
            build_job_completion(),
            build_merge_ready(),
            build_failure_notification(),
        ]
    )
