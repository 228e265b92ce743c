"""The resources that this deployment's pipelines share."""

import dagster as dg

from batch_assets.orchestration.resources import default_resources


@dg.definitions
def resources() -> dg.Definitions:
    """The ledger and one host for each type of executor; and runs of one process."""
    return dg.Definitions(resources=default_resources(), executor=dg.in_process_executor)
