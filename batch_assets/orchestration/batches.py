"""The batches of OpenAI's clients in Dagster: which of them a shard has requests of, as metadata of the shard."""

from typing import Any

import dagster as dg

from batch_assets.errors import BatchAssetsError
from batch_assets.orchestration import metadata
from batch_assets.orchestration.markdown import NOTHING
from batch_assets.plain_text import plain_text
from batch_assets.requests.batches.store import BatchStore
from batch_assets.requests.database import deployment_database


def batches_metadata(pipeline: str, shard: str) -> dict[str, Any]:
    """The ids of the batches that have requests in a shard of a pipeline of requests, and how many each."""
    try:
        found = BatchStore(deployment_database()).in_shard(pipeline, shard)
    except BatchAssetsError as error:
        # What is committed is shown all the same.
        return {metadata.BATCHES: plain_text(f"not known: {error}")}
    return {metadata.BATCHES: dg.MetadataValue.json(found) if found else NOTHING}
