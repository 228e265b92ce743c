"""Commits of workers in which every record failed for one and the same reason: judged before they count.

They are whole, and stand where the records are at fault. What becomes of a shard whose commit does not count is in
`worker_collection.py`; what failing as a whole means, in `whole_failures.py`.
"""

from collections import Counter

from batch_assets.control.pipeline import Pipeline
from batch_assets.control.whole_failures import SameAnswer, same_answer
from batch_assets.embeddings.marker import ShardMarker, standing_marker
from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.embeddings.schema import INFERENCE
from batch_assets.errors import AccountingError
from batch_assets.ledger.states import State
from batch_assets.storage import Storage


def doubted_commit(pipeline: Pipeline, shard: str) -> tuple[ShardMarker, SameAnswer] | None:
    """What the worker of the shard's newest job has committed, and why all of it failed; None where that stands."""
    marker, _ = standing_marker(pipeline.storage, shard)
    if marker is None or marker.counts["embedded"] or not marker.counts["failed"]:
        return None
    row = pipeline.ledger.shard(pipeline.name, shard)
    if row is None or row.state is State.COLLECTED or row.job != marker.fence:
        return None
    try:
        answer = same_answer(_reasons(pipeline.storage, marker), marker.counts["failed"])
    except (AccountingError, FileNotFoundError):
        return None  # damaged: whoever counts it finds that
    return None if answer is None else (marker, answer)


def _reasons(storage: Storage, marker: ShardMarker) -> Counter[tuple[str, str]]:
    """Why records failed: (code, message) → records; those that were bad input are left out."""
    reasons: Counter[tuple[str, str]] = Counter()
    with open_parquet(storage, marker.failures.path) as file:
        for batch in file.iter_batches(columns=["stage", "error_code", "error_message"]):
            for stage, code, message in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if stage == INFERENCE:
                    reasons[code, message] += 1
    return reasons
