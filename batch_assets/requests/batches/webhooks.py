"""Who is to be told of which batch's end: one row each, which is due once the batch has ended (`store.py`)."""

from collections.abc import Sequence
from typing import Any

from batch_assets.requests.batches.store import BATCH_COLUMNS, Batch
from batch_assets.requests.due_ends import DueEnds


class BatchWebhooks(DueEnds[Batch]):
    """The webhooks of batches."""

    table, ended_table, ended_columns = "requests_batch_webhooks", "requests_batches", BATCH_COLUMNS

    def made_of(self, row: Sequence[Any]) -> Batch:
        """The batch of a row."""
        return Batch(*row)
