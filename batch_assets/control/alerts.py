"""What a turn of the control loop gives a person to know. Each is told once, whoever's turn finds it."""

from collections.abc import Iterator

from batch_assets.control.loop import Turn
from batch_assets.control.pipeline import Pipeline
from batch_assets.control.reconciler import BY_ORDER
from batch_assets.ledger.rows import SubmissionRow
from batch_assets.ledger.states import SubmissionState
from batch_assets.notifications.base import Notification
from batch_assets.notifications.events import budget_reached, job_failed, submission_refused

TOLD_FOR_SECONDS = 600.0
BAD_ENDS = (SubmissionState.FAILED, SubmissionState.EXPIRED, SubmissionState.STOPPED)


def alerts_of(pipeline: Pipeline, turn: Turn) -> Iterator[Notification]:
    """Failed jobs, refused submissions and a reached budget of one pipeline."""
    # By the ledger, not by `turn.ended`: a run's own turn may have seen the end, and tells nobody.
    since = pipeline.ledger.now() - TOLD_FOR_SECONDS
    ended = pipeline.ledger.submissions(pipeline=pipeline.name, states=BAD_ENDS, ended_since=since)
    for submission in ended:
        if submission.message != BY_ORDER:
            yield _failed(pipeline, submission)
    if pipeline.name in turn.refused:
        yield submission_refused(pipeline.name, turn.refused[pipeline.name])
    budget = getattr(pipeline.settings.executor, "budget_usd", None)
    row = pipeline.ledger.pipeline(pipeline.name)
    # As long as something is reserved, what it does not use may let the next job go.
    blocked = row is not None and row.blocked_kind == "budget" and not row.held_usd
    if budget is not None and row is not None and blocked and row.blocked:
        yield budget_reached(pipeline.name, budget, row.blocked)


def _failed(pipeline: Pipeline, submission: SubmissionRow) -> Notification:
    shards = [job.shard for job in pipeline.ledger.jobs_of(submission.token)]
    rows = pipeline.ledger.shards(pipeline.name, keys=shards)
    attempts = max((row.attempt for row in rows), default=1)
    left = max(pipeline.settings.executor.max_attempts - attempts, 0)
    message = submission.message or f"the job {submission.state.value}, and the service does not say why"
    return job_failed(pipeline.name, " ".join(shards), submission.name, message, left)
