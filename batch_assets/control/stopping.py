"""The order to stop: nothing more is started, what runs at a service is ended, the ledger knows it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from batch_assets.control.loop import take_turn
from batch_assets.control.pipeline import Pipeline, deferred
from batch_assets.control.reconciler import ACTIVE, BY_ORDER, reconcile_now
from batch_assets.errors import SubmissionRefused
from batch_assets.executors.service_jobs import Unanswered
from batch_assets.ledger.rows import SubmissionRow
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import SETTLE_SECONDS

logger = plain_logger(__name__)


@dataclass(frozen=True)
class Stopped:
    """Shards stopped before they began, jobs ended at the service, and those not known to have ended."""

    waiting: int
    ended: int
    running: int


def stop_pipeline(pipeline: Pipeline, seconds: float = SETTLE_SECONDS) -> Stopped:
    """Stop a pipeline, and wait at most so long until the service says that its jobs have ended.

    What a stopped job has done is collected when the pipeline goes on, and costs no attempt.
    """
    ledger, name = pipeline.ledger, pipeline.name
    waiting = len(ledger.stop(name))
    if pipeline.executor.in_place:
        return Stopped(waiting, 0, 0)
    before = _active(pipeline)
    deadline = time.monotonic() + seconds
    asked: set[str] = set()
    while (left := _active(pipeline)) and time.monotonic() < deadline:
        for submission in left:
            if submission.service_id is not None and submission.token not in asked:
                _cancel(pipeline, submission, asked)
        try:
            reconcile_now(pipeline)
        except Unanswered:
            take_turn([pipeline], submit=False)
        if _active(pipeline):
            time.sleep(min(pipeline.poll_seconds, 2.0))
    left = _active(pipeline)
    # What was back in the queue meanwhile stops too.
    waiting += len(ledger.stop(name))
    return Stopped(waiting, len(before) - len(left), len(left))


def cancel_active(pipeline: Pipeline, chosen: Callable[[SubmissionRow], bool] = lambda _: True) -> None:
    """Ask the service once to end every job of the pipeline that it runs, of those `chosen`.

    One that does not hear goes on, and so does one that may not be ended: whoever collects has other shards too.
    """
    for submission in _active(pipeline):
        asked_before = submission.message == BY_ORDER
        if submission.service_id is None or asked_before or not chosen(submission):
            continue
        try:
            _cancel(pipeline, submission, set())
        except SubmissionRefused as error:
            logger.warning("%s: not ended: %s", submission.name, error)


def _active(pipeline: Pipeline) -> list[SubmissionRow]:
    return pipeline.ledger.submissions(pipeline=pipeline.name, states=ACTIVE)


def _cancel(pipeline: Pipeline, submission: SubmissionRow, asked: set[str]) -> None:
    assert submission.service_id is not None
    # Before the call: an end that nobody has ordered would cost an attempt.
    pipeline.ledger.observe(submission.token, submission.state, message=BY_ORDER)
    try:
        deferred(pipeline).stop(submission.service_id)
    except Unanswered:
        return  # asked again in the next round
    asked.add(submission.token)
