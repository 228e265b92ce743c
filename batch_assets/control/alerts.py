"""What a person is to know of a pipeline's jobs, and what came of its merges. Each is told once, whoever finds it."""

from collections.abc import Iterable, Iterator

from batch_assets.control.attempts import attempts_left
from batch_assets.control.loop import Turn
from batch_assets.control.pipeline import Pipeline, deferred
from batch_assets.control.reconciler import BY_ORDER
from batch_assets.control.worker_collection import worker_end
from batch_assets.errors import AllRejected, BatchAssetsError
from batch_assets.executors.service_jobs import Unanswered
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import JobRow, SubmissionRow
from batch_assets.ledger.states import BreakerState, SubmissionState
from batch_assets.merge.base import Manifest
from batch_assets.notifications.base import Notification, Notifier
from batch_assets.notifications.delivery import notify
from batch_assets.notifications.events import (
    blocked_key,
    budget_reached,
    job_failed,
    job_key,
    jobs_fail_alike,
    output_unexpected,
    published,
    publishing_blocked,
    submission_refused,
)
from batch_assets.plain_text import plain_logger

TOLD_FOR_SECONDS = 600.0
BAD_ENDS = (SubmissionState.FAILED, SubmissionState.EXPIRED, SubmissionState.STOPPED)
logger = plain_logger(__name__)


def alerts_of(pipeline: Pipeline, turn: Turn) -> Iterator[Notification]:
    """Failed jobs, refused submissions and a reached budget of one pipeline.

    Of jobs that fail as a whole one after the other, that nothing more is submitted: not each of them.
    """
    breaker = pipeline.ledger.breaker(pipeline.name)
    tripped = breaker is not None and breaker.state is not BreakerState.COUNTING
    if breaker is not None and breaker.state is BreakerState.OPEN:
        yield jobs_fail_alike(pipeline.name, breaker.since, breaker.message)
    # By the ledger, not by `turn.ended`: a run's own turn may have seen the end, and tells nobody.
    since = pipeline.ledger.now() - TOLD_FOR_SECONDS
    states = (*BAD_ENDS, SubmissionState.PARTIAL)
    ended = pipeline.ledger.submissions(pipeline=pipeline.name, states=states, ended_since=since)
    for submission in ended:
        # Looked up first: an array has thousands of jobs, and turns come every other second.
        told = pipeline.ledger.is_noticed(job_key(pipeline.name, submission.name))
        if submission.message == BY_ORDER or told or tripped:
            continue
        if failed := _failed_jobs(pipeline, submission):
            yield _failed(pipeline, submission, failed)
    row = pipeline.ledger.pipeline(pipeline.name)
    if pipeline.name in turn.refused and not (row is not None and row.blocked_kind == "failing"):
        of_output = row is not None and row.blocked_kind == "output"
        tell = output_unexpected if of_output else submission_refused
        yield tell(pipeline.name, turn.refused[pipeline.name])
    limit = pipeline.budget.usd
    # As long as something is reserved, what it does not use may let the next job go.
    blocked = row is not None and row.blocked_kind == "budget" and not row.held_usd
    if limit is not None and row is not None and blocked and row.blocked:
        yield budget_reached(pipeline.name, limit, row.blocked)


def _failed_jobs(pipeline: Pipeline, submission: SubmissionRow) -> list[JobRow]:
    """The submission's jobs that failed: those that say so themselves, and where it failed those that say nothing."""
    jobs = pipeline.ledger.jobs_of(submission.token)
    bad = submission.state in BAD_ENDS
    return [job for job in jobs if (job.state in BAD_ENDS if job.state is not None else bad)]


def _failed(pipeline: Pipeline, submission: SubmissionRow, failed: list[JobRow]) -> Notification:
    shards = sorted(job.shard for job in failed)
    rows = pipeline.ledger.shards(pipeline.name, keys=shards)
    attempts = max((row.attempt for row in rows), default=1)
    left = attempts_left(pipeline, attempts)
    message = _reason_of_worker(pipeline, failed[0]) or submission.message
    message = message or f"the job {submission.state.value}, and the service does not say why"
    return job_failed(pipeline.name, shards, submission.name, message, left)


def _reason_of_worker(pipeline: Pipeline, job: JobRow) -> str | None:
    """What a worker says of its own end: an array only says that one of its children has failed."""
    if pipeline.executor.in_place or not deferred(pipeline).commits:
        return None
    try:
        return worker_end(pipeline, job)[0]
    except (Unanswered, BatchAssetsError, FileNotFoundError) as error:
        logger.info("shard %s: why its worker failed cannot be asked: %s", job.shard, error)
        return None


def tell_published(pipeline: Pipeline, manifest: Manifest, uri: str, notifiers: Iterable[Notifier]) -> None:
    """Tell once that this version is the published one. Never fails: the work is done."""
    told = published(
        pipeline.name,
        manifest.version,
        planned=manifest.planned,
        embedded=manifest.rows,
        rejected=manifest.rejected,
        failed=manifest.failed,
        cost_usd=manifest.cost_usd,
        uri=uri,
    )
    _tell(pipeline, told, notifiers)


def tell_blocked(pipeline: Pipeline, error: Exception, notifiers: Iterable[Notifier]) -> None:
    """Tell once that what there is now is not published, and why. Never fails."""
    row = pipeline.ledger.pipeline(pipeline.name)
    _tell(pipeline, _blocked(pipeline.name, row.revision if row else 0, error), notifiers)


def _blocked(name: str, revision: int, error: Exception) -> Notification:
    return publishing_blocked(name, revision, str(error), rejected=isinstance(error, AllRejected))


def _tell(pipeline: Pipeline, notification: Notification, notifiers: Iterable[Notifier]) -> None:
    try:
        notify(pipeline.ledger.notice_once, notifiers, notification)
    except Exception as error:  # the ledger may be away for a moment
        logger.warning("%s: not notified: %s", notification.title, type(error).__name__)


def is_blocked(ledger: Ledger, name: str) -> bool:
    """Whether it was told already that what there is now may not be published."""
    row = ledger.pipeline(name)
    return row is not None and ledger.is_noticed(blocked_key(name, row.revision))
