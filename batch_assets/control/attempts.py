"""The way of `executor.max_attempts` to what is decided by it, in `retry_policy.py`, for one pipeline."""

from batch_assets.control.pipeline import Pipeline
from batch_assets.ledger.rows import Claim
from batch_assets.ledger.states import State
from batch_assets.retry_policy import Cause, Decision, JobEnd, after_deaths, after_job


def fail(pipeline: Pipeline, claim: Claim, error: str, cause: Cause = Cause.FAILED, lost: int = 0) -> State:
    """What the claim was for failed; where the shard is then. `lost` machines were forgiven before."""
    return pipeline.ledger.fail(claim, error, _most(pipeline), cause, lost)


def decide_after_job(pipeline: Pipeline, attempt: int, end: JobEnd) -> Decision:
    """Whether the records that a service's job has left are tried again, and whether it was an attempt."""
    return after_job(attempt, _most(pipeline), end)


def decide_after_deaths(pipeline: Pipeline, attempt: int) -> Decision:
    """Whether a shard at which processes may have died is tried for the `attempt`-th time."""
    return after_deaths(attempt, _most(pipeline))


def attempts_left(pipeline: Pipeline, attempts: int) -> int:
    """How many attempts a shard has after so many."""
    return max(_most(pipeline) - attempts, 0)


def _most(pipeline: Pipeline) -> int:
    return pipeline.settings.executor.max_attempts
