"""The project's own resources. No key is taken from it: those of Batch Assets begin with `batch_assets_`."""

import dagster as dg


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(
        resources={
            "ledger": dg.ResourceDefinition.hardcoded_resource("the editors' accounts"),
            "gpu": dg.ResourceDefinition.hardcoded_resource("the machine that renders pictures"),
        }
    )
