"""Collecting a shard whose worker has ended without a commit that counts: it is tried again, or the commit stands.

The worker is `worker/container.py`. How results of other services are joined is in `job_collection.py`.
"""

from dataclasses import dataclass

from batch_assets.control.attempts import decide_after_job
from batch_assets.control.breaker import Verdict, failing_since, judge_failure
from batch_assets.control.committing import ClaimedShard
from batch_assets.control.descriptions import describe
from batch_assets.control.doubted_commits import doubted_commit
from batch_assets.control.job_collection import STALE, Continued
from batch_assets.control.pipeline import Pipeline, adopt_marker, with_workers
from batch_assets.control.reconciler import BY_ORDER
from batch_assets.control.submission import members_of
from batch_assets.control.uploading import queue_job
from batch_assets.control.whole_failures import SameAnswer, same_answer
from batch_assets.embeddings.marker import ShardMarker
from batch_assets.embeddings.reason_codes import JOB_FAILED
from batch_assets.errors import BatchAssetsError, ClaimLost
from batch_assets.executors.aws_batch.requests import is_machine_lost
from batch_assets.executors.service_jobs import Order
from batch_assets.ledger.rows import JobRow, SubmissionRow
from batch_assets.retry_policy import JobEnd


class AttemptsSpent(BatchAssetsError):
    """No attempt is left for the shard; the text says what became of the last one."""


@dataclass(frozen=True)
class _CameOfIt:
    """What came of a worker: why there is no commit that counts, and where it may fail as a whole, by which answer.

    `committed` is the commit in which all records failed alike.
    """

    reason: str
    cost_usd: float
    answer: SameAnswer | None
    committed: ShardMarker | None = None


def continue_shard(pipeline: Pipeline, shard: ClaimedShard) -> Continued | ShardMarker:
    """Queue the next attempt at a shard whose worker has ended without a commit, or with one in which all failed alike.

    The latter's commit, where it stands: its records are at fault. A worker puts the marker before it ends, and
    stores show at once what is written: there is no waiting for it. Raises Unanswered, AttemptsSpent, ClaimLost.
    """
    ledger, claim = pipeline.ledger, shard.claim
    row = ledger.shard(pipeline.name, claim.shard)
    job = ledger.job(pipeline.name, claim.shard, row.job) if row is not None and row.job is not None else None
    if row is None or job is None:
        raise ClaimLost(f"shard {claim.shard}: it has no job any more")
    submission = ledger.submission(job.submission) if job.submission is not None else None
    description = describe(pipeline, job)
    outdated = description.fingerprint != shard.fingerprint
    came_of_it = _what_came_of_it(pipeline, job, judges_commit=not outdated)
    reason, answer, committed = came_of_it.reason, came_of_it.answer, came_of_it.committed
    ledger.settle(pipeline.name, claim.shard, job.fence, came_of_it.cost_usd)
    stopped = submission is not None and submission.message == BY_ORDER
    end, attempt, verdict, since = JobEnd.LEFT, description.attempt, None, None
    if outdated:
        # What was asked for then is not asked for any more, so it was no attempt at what is.
        end, attempt, reason = JobEnd.OUTDATED, 1, STALE
    elif stopped:
        end, reason = JobEnd.STOPPED, BY_ORDER
    elif answer is not None:
        verdict = judge_failure(pipeline, description, submission, answer, refused=committed is not None)
        since = failing_since(pipeline, description, submission)
        if verdict is Verdict.HELD_BACK:
            end = JobEnd.HELD_BACK
    waits = verdict in (Verdict.HELD_BACK, Verdict.COUNTED)
    if committed is not None and not waits:
        if not adopt_marker(pipeline, claim.shard):
            raise ClaimLost(f"shard {claim.shard}: claimed by somebody else meanwhile")
        return committed
    decided = decide_after_job(pipeline, description.attempt, end)
    if not decided.again:
        raise AttemptsSpent(f"shard {claim.shard}: {reason}")
    order = Order(
        fence=claim.fence,
        attempt=attempt + decided.counts,
        outdated_fence=row.outdated_fence if committed is None else committed.fence,
        failing_since=since,
    )
    if not queue_job(pipeline, shard.shard, claim, order, (reason, decided.reason)):
        raise ClaimLost(f"shard {claim.shard}: claimed by somebody else meanwhile")
    records = shard.shard.records
    return Continued(description.attempt, 0, records, {reason: records}, waits)


def _what_came_of_it(pipeline: Pipeline, job: JobRow, *, judges_commit: bool) -> _CameOfIt:
    if judges_commit and (doubted := doubted_commit(pipeline, job.shard)) is not None:
        marker, answer = doubted
        return _CameOfIt(answer.message, marker.cost_usd or 0.0, answer, marker)
    reason, seconds = worker_end(pipeline, job)
    # A machine that was taken away tells nothing of the next one.
    answer = None if is_machine_lost(reason) else same_answer({(JOB_FAILED, reason): 1}, 1)
    return _CameOfIt(reason, with_workers(pipeline).price(seconds) or 0.0, answer)


def settle_worker(pipeline: Pipeline, marker: ShardMarker) -> None:
    """Count what a committed shard's worker has cost, and that it did well."""
    if marker.counts["embedded"]:
        pipeline.ledger.close_breaker(pipeline.name)
    row = pipeline.ledger.shard(pipeline.name, marker.shard)
    if row is not None and row.job is not None:
        pipeline.ledger.settle(pipeline.name, marker.shard, row.job, marker.cost_usd or 0.0)


def worker_end(pipeline: Pipeline, job: JobRow) -> tuple[str, float]:
    """Why the job's worker ended without a commit, and after how many seconds. Raises Unanswered, FileNotFoundError."""
    submission = pipeline.ledger.submission(job.submission) if job.submission is not None else None
    return with_workers(pipeline).ended(describe(pipeline, job), _worker(pipeline, submission, job))


def _worker(pipeline: Pipeline, submission: SubmissionRow | None, job: JobRow) -> str | None:
    """What the service calls the job's worker."""
    if submission is None or submission.service_id is None:
        return None
    place = 0
    if submission.jobs > 1:
        members = members_of(pipeline, submission.name)
        place = members.index((job.shard, job.fence)) if (job.shard, job.fence) in members else 0
    return with_workers(pipeline).worker(submission.service_id, place, submission.jobs)
