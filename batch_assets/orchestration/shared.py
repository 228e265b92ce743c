"""What all pipelines of a code location share, and Dagster takes once: resources and sensors.

Who contributes it, and which resources a project defines itself, is for `components/` to say.
"""

from collections.abc import Collection

import dagster as dg

from batch_assets.orchestration.resources import default_resources
from batch_assets.orchestration.sensors.failure_notification import build_failure_notification
from batch_assets.orchestration.sensors.job_completion import build_job_completion
from batch_assets.orchestration.sensors.merge_ready import build_merge_ready
from batch_assets.orchestration.sensors.new_input import build_new_input


def build_shared_definitions(left_out: Collection[str] = ()) -> dg.Definitions:
    """The default resources, but for the keys `left_out`, and one sensor of each kind."""
    resources = {key: resource for key, resource in default_resources().items() if key not in left_out}
    sensors = [
        build_new_input(),
        build_job_completion(),
        build_merge_ready(),
        build_failure_notification(),
    ]
    return dg.Definitions(resources=resources, sensors=sensors)
