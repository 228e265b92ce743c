"""What a turn of the control loop tidies up. The verbs that move shards are in the files beside this one."""

from batch_assets import paths
from batch_assets.embeddings.marker import ShardMarker, read_marker
from batch_assets.ledger.ledger import Ledger, ShardRow
from batch_assets.storage import open_storage


def committed_marker(ledger: Ledger, row: ShardRow) -> tuple[ShardMarker, str] | None:
    """The shard's commit marker and the URI of its folder; None where it is not committed any more."""
    pipeline = ledger.pipeline(row.pipeline)
    if pipeline is None:
        return None
    storage = open_storage(pipeline.root)
    found = read_marker(storage, row.key)
    return None if found is None else (found[0], f"{storage.uri}/{paths.shard_folder(row.key)}")
