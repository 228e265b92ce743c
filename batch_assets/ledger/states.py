"""The states of a shard and of a submission, and the moves between them.

A shard's state is that of its newest job. The moves themselves, by compare-and-set, are in
`moves.py`, `claims.py`, `queue.py` and `submissions.py`; who makes them is in `control/` and
`orchestration/`.
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
    RUNNING = "running"  # in place: claimed, being computed; deferred: the service computes
    SUCCEEDED = "succeeded"  # this and the next four: ended at the service, not collected yet
    PARTIAL = "partial"
    FAILED = "failed"
    EXPIRED = "expired"
    STOPPED = "stopped"  # at the service, or before it was ever there
    COLLECTING = "collecting"  # results are fetched, or data files written and the commit marker being put
    COLLECTED = "collected"  # committed
    EXHAUSTED = "exhausted"  # attempts spent, or wanted by nobody before it began


class SubmissionState(StrEnum):
    """Where a submission stands. It never goes back, and never leaves where it ended."""

    SUBMITTING = "submitting"  # intent written; whether it exists at the service is not known yet
    SUBMITTED = "submitted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    EXPIRED = "expired"
    STOPPED = "stopped"
    REFUSED = "refused"  # nothing exists at the service; its jobs are in the queue again


class BreakerState(StrEnum):
    """What may be submitted of a pipeline whose jobs fail as a whole."""

    COUNTING = "counting"  # everything still: there may be a reason that is the job's own
    PROBING = "probing"  # one submission at a time, and none while another is not judged
    OPEN = "open"  # nothing, until a person says `retry` or tries another setting


ENDED = frozenset({State.SUCCEEDED, State.PARTIAL, State.FAILED, State.EXPIRED, State.STOPPED})
"""What a shard becomes when its job ends at the service."""

AT_SERVICE = frozenset({State.SUBMITTING, State.SUBMITTED, State.RUNNING})
"""Where a shard stands while its submission has a slot (RUNNING: if nobody holds it)."""

UNFINISHED = frozenset(State) - {State.COLLECTED, State.EXHAUSTED}
"""Where a shard may still come to an end of its own accord."""

LIVE_SUBMISSION = frozenset(SubmissionState(state) for state in AT_SERVICE)
"""These have a slot at the service."""

ENDED_SUBMISSION = frozenset(SubmissionState(state) for state in ENDED)

MOVES: dict[State, frozenset[State]] = {
    # From PLANNED on a lost ledger goes straight to where the job is.
    State.PLANNED: frozenset({State.PREPARED, State.READY, State.QUEUED, State.SUBMITTED}),
    State.PREPARED: frozenset({State.PLANNED, State.READY, State.QUEUED, State.SUBMITTED, State.EXHAUSTED}),
    State.READY: frozenset({State.PLANNED, State.PREPARED, State.RUNNING, State.STOPPED, State.EXHAUSTED}),
    State.QUEUED: frozenset(
        {State.PREPARED, State.READY, State.SUBMITTING, State.SUBMITTED, State.STOPPED, State.EXHAUSTED}
    ),
    State.SUBMITTING: frozenset({State.QUEUED, State.SUBMITTED, State.RUNNING, *ENDED}),
    State.SUBMITTED: frozenset({State.RUNNING, *ENDED}),
    State.RUNNING: frozenset(
        {State.READY, State.QUEUED, *ENDED, State.COLLECTING, State.COLLECTED, State.EXHAUSTED}
    ),
    State.SUCCEEDED: frozenset({State.COLLECTING}),
    State.PARTIAL: frozenset({State.COLLECTING}),
    State.FAILED: frozenset({State.COLLECTING}),
    State.EXPIRED: frozenset({State.COLLECTING}),
    State.STOPPED: frozenset({State.PREPARED, State.READY, State.QUEUED, State.SUBMITTED, State.COLLECTING}),
    State.COLLECTING: frozenset({State.COLLECTED, State.READY, State.QUEUED, *ENDED, State.EXHAUSTED}),
    # Told to compute again, or to try again; PLANNED where the input is another one by now.
    State.COLLECTED: frozenset({State.PLANNED, State.PREPARED, State.READY}),
    State.EXHAUSTED: frozenset({State.PLANNED, State.PREPARED, State.READY, *ENDED}),
}
"""From each state, where it may go. Any state may become COLLECTED where the root already
holds a commit marker of the current fingerprint (`Ledger.adopt_all`)."""
