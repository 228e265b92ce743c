"""The breaker of a pipeline whose jobs fail as a whole: what becomes of such a job's records, and what is submitted.

A model that is not entitled, a role that may not decrypt, a bad parameter: every job would end like the one before,
and its records count as failed for good. So after such a job one more submission is sent, the probe, or those are
waited for that are under way; where that fails as a whole too, nothing is submitted until a person says `retry` or
tries another setting. Whatever job does well, if in part, ends it, and what was held back takes its ordinary way.

Whether a job failed as a whole is decided in `whole_failures.py`; the state is the ledger's (`ledger/breakers.py`),
and the claim of a submission heeds it.
"""

import enum

from batch_assets.control.attempts import attempts_left
from batch_assets.control.changed_settings import settings_digest
from batch_assets.control.pipeline import Pipeline, deferred
from batch_assets.control.stopping import cancel_active
from batch_assets.control.whole_failures import SameAnswer
from batch_assets.crash_points import crash_point
from batch_assets.executors.jobs import JobDescription
from batch_assets.ledger.rows import SubmissionRow, WholeFailure
from batch_assets.ledger.states import BreakerState, State
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import WHOLE_FAILURES_IN_A_ROW, whole_failures_that_last

logger = plain_logger(__name__)


class Verdict(enum.Enum):
    """What becomes of the records of a job that failed as a whole."""

    ORDINARY = "ordinary"  # what becomes of any: tried again while attempts are left, or failed
    HELD_BACK = "held back"  # tried again once jobs do well, and this was no attempt
    COUNTED = "counted"  # the same, and it was one: a person insists that nothing is wrong with the settings


def judge_failure(
    pipeline: Pipeline,
    job: JobDescription,
    submission: SubmissionRow | None,
    answer: SameAnswer,
    *,
    refused: bool,
) -> Verdict:
    """Count a job that failed as a whole; repeatable for the same job.

    `refused`: its records would fail for good at once. Where others contradict a job, which did well
    meanwhile, it is its own shard's fault.
    """
    ledger, name = pipeline.ledger, pipeline.name
    claimed = failing_since(pipeline, job, submission)
    last_attempt = not attempts_left(pipeline, job.attempt)
    known = ledger.breaker(name)
    tripped = known is not None and known.state is not BreakerState.COUNTING
    # That others did well at the same time clears the settings; but what a service refuses may be new.
    may_be_own = job.failing_since is not None or not refused
    if not tripped and may_be_own and ledger.did_well_since(name, claimed):
        return Verdict.ORDINARY
    failure = WholeFailure(
        shard=job.shard,
        fence=job.fence,
        jobs=submission.jobs if submission is not None else 1,
        alike=answer.alike,
        message=_told(pipeline, answer),
        claimed_at=submission.claimed_at if submission is not None else claimed,
        settings=settings_digest(pipeline),
    )
    row = ledger.failed_as_a_whole(name, failure, 1 if refused or last_attempt else WHOLE_FAILURES_IN_A_ROW)
    crash_point("whole-failure-noted")
    if row is None or row.state is BreakerState.COUNTING:
        return Verdict.ORDINARY
    logger.warning("shard %s: its job failed as a whole (%s); its records wait", job.shard, answer.message)
    if row.state is BreakerState.OPEN and deferred(pipeline).commits:
        # Workers that cannot do it would go on one after the other: an array may hold all of the pipeline's shards.
        cancel_active(pipeline, lambda active: row.failures >= whole_failures_that_last(active.jobs))
    if row.insisted and failure.claimed_at >= row.renewed_at:
        if not last_attempt:
            return Verdict.COUNTED
        if not ledger.counts(name)[State.QUEUED]:
            ledger.close_breaker(name)  # nothing is held back any more
        return Verdict.ORDINARY
    return Verdict.HELD_BACK


def failing_since(pipeline: Pipeline, job: JobDescription, submission: SubmissionRow | None) -> float:
    """When the first of the shard's jobs was submitted that failed as a whole, this one being the last."""
    if job.failing_since is not None:
        return job.failing_since
    return submission.claimed_at if submission is not None else pipeline.ledger.now()


def _told(pipeline: Pipeline, answer: SameAnswer) -> str:
    """What the service said, what that means, and what to look at."""
    said, name = answer.message.strip().rstrip("."), pipeline.name
    what = "the jobs fail with it" if answer.of_job else "every record of the jobs is answered so"
    look_at = (
        f"access to the model {pipeline.settings.model_name}, the role's permissions (read, write, decrypt)"
    )
    if deferred(pipeline).commits:
        look_at = (
            "the image, the job role's permissions, whether workers reach the source and the output root"
        )
    return (
        f"{said}: {what}, one after the other, so nothing more is submitted; no record has failed for good by it. "
        f"Look at what all jobs share: {look_at}, the settings of the executor. Once that is mended, "
        f"`batch-assets retry {name}` (or a setting not tried yet) and `batch-assets run {name}` go on, with one "
        "submission first"
    )
