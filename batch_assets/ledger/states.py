"""The states of a shard and the moves between them.

A shard's state is that of its newest job. The moves themselves, by compare-and-set, are in
`moves.py` and `claims.py`; who makes them is in `control/` and `orchestration/`.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a shard stands."""

    PLANNED = "planned"  # cut from the source
    PREPARED = "prepared"  # records checked, input manifest written
    READY = "ready"  # in place: whoever claims it may compute it
    QUEUED = "queued"  # deferred: request files lie at the service, waiting for a slot
    SUBMITTING = "submitting"  # intent written, the call to the service not yet known to have succeeded
    SUBMITTED = "submitted"
    RUNNING = "running"  # in place: claimed, being computed
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    EXPIRED = "expired"
    STOPPED = "stopped"
    COLLECTING = "collecting"  # data files written, the commit marker is being put
    COLLECTED = "collected"  # committed
    EXHAUSTED = "exhausted"  # attempts spent


MOVES: dict[State, frozenset[State]] = {
    State.PLANNED: frozenset({State.PREPARED}),
    State.PREPARED: frozenset({State.READY, State.QUEUED}),
    State.READY: frozenset({State.RUNNING, State.STOPPED}),
    State.QUEUED: frozenset({State.SUBMITTING, State.STOPPED}),
    State.SUBMITTING: frozenset({State.SUBMITTED, State.QUEUED, State.FAILED}),
    State.SUBMITTED: frozenset(
        {State.RUNNING, State.SUCCEEDED, State.PARTIAL, State.FAILED, State.EXPIRED, State.STOPPED}
    ),
    State.RUNNING: frozenset(
        {State.READY, State.SUCCEEDED, State.PARTIAL, State.FAILED, State.EXPIRED, State.STOPPED,
         State.COLLECTING, State.COLLECTED}
    ),
    State.SUCCEEDED: frozenset({State.COLLECTING}),
    State.PARTIAL: frozenset({State.COLLECTING}),
    State.FAILED: frozenset({State.READY, State.QUEUED, State.EXHAUSTED}),
    State.EXPIRED: frozenset({State.QUEUED, State.COLLECTING, State.EXHAUSTED}),
    State.STOPPED: frozenset({State.READY, State.QUEUED, State.COLLECTING}),
    State.COLLECTING: frozenset({State.COLLECTED, State.READY, State.QUEUED, State.FAILED}),
    State.COLLECTED: frozenset({State.READY, State.QUEUED}),  # told to compute again
    State.EXHAUSTED: frozenset({State.READY, State.QUEUED}),  # told to try again
}  # fmt: skip
"""From each state, where it may go. Any state may become COLLECTED where the root already
holds a commit marker of the current fingerprint (`Ledger.adopt_all`)."""
