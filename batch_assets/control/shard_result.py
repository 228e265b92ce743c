"""How asking for a shard's result can end, and the words for a shard that cannot be had now.

When which of them is true is found out in `collection.py`.
"""

from dataclasses import dataclass
from enum import StrEnum

from batch_assets.control.job_collection import Continued
from batch_assets.embeddings.marker import ShardMarker
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import State

_AT_THE_SERVICE = (State.QUEUED, State.SUBMITTING, State.SUBMITTED)


class Result(StrEnum):
    """How asking for one shard ended."""

    COLLECTED = "collected"  # computed by this call
    VERIFIED = "verified"  # was committed before; its files are there
    HELD = "held"  # somebody else is at it
    NOT_READY = "not_ready"
    CONTINUED = "continued"  # some records are tried again; the others are kept
    RETRYING = "retrying"  # failed as a whole, attempts are left
    EXHAUSTED = "exhausted"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ShardResult:
    """What became of one shard; `marker` is there for COLLECTED and VERIFIED, `message` otherwise.

    `continued` says what CONTINUED means; `silent` is why it was NOT_READY, where the service did not answer.
    """

    key: str
    result: Result
    marker: ShardMarker | None = None
    message: str = ""
    continued: Continued | None = None
    silent: str | None = None


def unclaimed_shard(row: ShardRow | None, key: str) -> ShardResult:
    """Why nobody could claim the shard, by its row in the ledger."""
    if row is None:
        return ShardResult(key, Result.NOT_READY, message=f"shard {key} is not planned")
    if row.superseded:
        text = f"shard {key} was replaced by a later plan; its rows are no longer merged"
        return ShardResult(key, Result.NOT_READY, message=text)
    if row.state is State.EXHAUSTED:
        text = f"shard {key} is given up after {row.attempt} attempts: {row.error}; mend it, then `batch-assets retry`"
        return ShardResult(key, Result.EXHAUSTED, message=text)
    if row.state in _AT_THE_SERVICE or (row.state is State.RUNNING and row.holder is None):
        text = f"shard {key} is {row.state.value}: its job has not ended; job_completion, or `run`, collects it then"
        return ShardResult(key, Result.NOT_READY, message=text)
    if row.state in (State.RUNNING, State.COLLECTING):
        return ShardResult(key, Result.HELD, message=f"shard {key} is being embedded by {row.holder}")
    if row.state is State.STOPPED:
        text = f"shard {key} was stopped; `batch-assets retry` or `run` takes it up again"
        return ShardResult(key, Result.STOPPED, message=text)
    text = f"shard {key} is {row.state.value}, not ready: materialize input_shards and submitted_jobs first"
    return ShardResult(key, Result.NOT_READY, message=text)
