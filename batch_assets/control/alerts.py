"""What a turn of the control loop gives a person to know. Each is told once, whoever's turn finds it."""

from collections.abc import Iterator

from batch_assets.control.loop import Turn
from batch_assets.control.pipeline import Pipeline
from batch_assets.control.reconciler import BY_ORDER
from batch_assets.ledger.rows import SubmissionRow
from batch_assets.ledger.states import SubmissionState
from batch_assets.notifications.base import Notification
from batch_assets.notifications.events import budget_reached, job_failed, submission_refused

BAD_ENDS = (SubmissionState.FAILED, SubmissionState.EXPIRED, SubmissionState.STOPPED)


def alerts_of(pipeline: Pipeline, turn: Turn) -> Iterator[Notification]:
    """Failed jobs, refused submissions and a reached budget of one pipeline."""
    for submission in turn.ended:
        failed = submission.state in BAD_ENDS and submission.message != BY_ORDER
        if submission.pipeline == pipeline.name and failed:
            yield _failed(pipeline, submission)
    if pipeline.name in turn.refused:
        yield submission_refused(pipeline.name, turn.refused[pipeline.name])
    budget = getattr(pipeline.settings.executor, "budget_usd", None)
    row = pipeline.ledger.pipeline(pipeline.name)
    if budget is not None and row is not None and row.blocked_kind == "budget" and row.blocked:
        yield budget_reached(pipeline.name, budget, row.blocked)


def _failed(pipeline: Pipeline, submission: SubmissionRow) -> Notification:
    shards = [job.shard for job in pipeline.ledger.jobs_of(submission.token)]
    rows = pipeline.ledger.shards(pipeline.name, keys=shards)
    attempts = max((row.attempt for row in rows), default=1)
    left = max(pipeline.settings.executor.max_attempts - attempts, 0)
    message = submission.message or f"the job {submission.state.value}, and the service does not say why"
    return job_failed(pipeline.name, " ".join(shards), submission.name, message, left)
