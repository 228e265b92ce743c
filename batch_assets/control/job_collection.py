"""Collecting a job that ran at a service: its results fetched, joined, and either committed or completed.

Each record of the job is settled, or goes into the next attempt with the ones like it; what is
settled is kept and never paid for again. The commit itself is `committing.py`.
"""

import time
from dataclasses import dataclass

import numpy as np

from batch_assets import paths
from batch_assets.control.attempts import decide_after_job
from batch_assets.control.breaker import Verdict, failing_since, judge_failure
from batch_assets.control.committing import ClaimedShard, attempt_at, bring_to_commit
from batch_assets.control.descriptions import describe
from batch_assets.control.keeping import AttemptMarker, load_commit, read_attempt, write_attempt
from batch_assets.control.pipeline import Pipeline, with_results
from batch_assets.control.reconciler import BY_ORDER
from batch_assets.control.stopping import cancel_active
from batch_assets.control.uploading import queue_job
from batch_assets.control.whole_failures import same_answer
from batch_assets.crash_points import crash_point
from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.marker import ShardMarker
from batch_assets.embeddings.reason_codes import UNEXPECTED
from batch_assets.errors import BudgetReached, ClaimLost
from batch_assets.executors.base import JobState
from batch_assets.executors.jobs import JobDescription
from batch_assets.executors.service_jobs import Order, UnexpectedOutput
from batch_assets.ledger.rows import JobRow, SubmissionRow
from batch_assets.patience import pause
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import Decision, JobEnd, results_patience
from batch_assets.worker.run_shard import run_shard

STALE = "stale"
logger = plain_logger(__name__)


@dataclass(frozen=True)
class Continued:
    """What became of a shard of which records are tried again: `kept` rows stay, `again` are queued.

    `waits`: not before jobs do well again (`breaker.py`).
    """

    attempt: int
    kept: int
    again: int
    reasons: dict[str, int]
    waits: bool = False

    @property
    def summary(self) -> str:
        """What became of it, and why."""
        why = ", ".join(f"{count:,} {code}" for code, count in self.reasons.items())
        return f"attempt {self.attempt} settled {self.kept:,} records; {self.again:,} are tried again ({why})"

    def describe(self, shard: str) -> str:
        when = ", once jobs do well: this one failed as a whole" if self.waits else ""
        return f"shard {shard}: {self.summary}{when}"


@dataclass(frozen=True)
class _Left:
    """What a job has come to where it leaves records to be tried again.

    `waits`: once jobs do well. `failing_since` is when the shard's jobs began to fail as a whole, None where this one
    did not.
    """

    rows: JobRows
    facts: JobFacts
    waits: bool
    failing_since: float | None


def collect_job(pipeline: Pipeline, shard: ClaimedShard) -> ShardMarker | Continued:
    """Bring the shard's newest job to its end: a commit, or the next attempt.

    Raises ResultsNotReady where results are late, Unanswered where the service is silent,
    BudgetReached where what must be called one by one does not fit, ClaimLost.
    """
    ledger, claim = pipeline.ledger, shard.claim
    row = ledger.shard(pipeline.name, claim.shard)
    job = ledger.job(pipeline.name, claim.shard, row.job) if row is not None and row.job is not None else None
    if job is None:
        raise ClaimLost(f"shard {claim.shard}: it has no job any more")
    description = describe(pipeline, job)
    if description.fingerprint != shard.fingerprint:
        return _begin_anew(pipeline, shard, description)
    submission = ledger.submission(job.submission) if job.submission is not None else None
    # Stopped by a person's order, nothing was wrong with the records.
    stopped = submission is not None and submission.message == BY_ORDER
    started, facts = time.perf_counter(), JobFacts()
    with JobRows(shard.shard.records) as rows:
        _load_kept(pipeline, shard, description, rows)
        others_did_well = rows.counts.embedded > 0
        if job.kind == "on_demand":
            _answer(pipeline, job, description, rows, facts)
        else:
            _fetch(pipeline, submission, description, rows, facts)
        facts.timings["fetch_seconds"] = time.perf_counter() - started
        ledger.settle(pipeline.name, claim.shard, description.fence, facts.cost_usd or 0.0)
        crash_point("cost-noted")
        verdict = None if stopped else _judge(pipeline, description, submission, rows, others_did_well)
        waits = verdict in (Verdict.HELD_BACK, Verdict.COUNTED)
        if waits:
            rows.fail_no_more(np.fromiter(description.asked(), dtype=np.int64))
        tried = description.attempt
        end = JobEnd.NARROWED if facts.narrowed else JobEnd.STOPPED if stopped else JobEnd.LEFT
        if verdict is Verdict.HELD_BACK:
            end = JobEnd.HELD_BACK
        decided = decide_after_job(pipeline, tried, end)
        if rows.counts.again and decided.again:
            since = failing_since(pipeline, description, submission) if verdict is not None else None
            left = _Left(rows, facts, waits, since)
            return _continue(pipeline, shard, description, submission, left, decided)
        rows.give_up(tried)
        _add_earlier(pipeline, description, facts)
        facts.timings["seconds"] = _seconds_of(submission, started)
        attempt = attempt_at(pipeline, shard, _job_name(description, submission))
        joined = run_shard(
            attempt, pipeline.storage, lambda records, _: (rows.outcomes(some) for some in records), facts
        )
        return bring_to_commit(pipeline, shard, joined)


def _judge(
    pipeline: Pipeline,
    job: JobDescription,
    submission: SubmissionRow | None,
    rows: JobRows,
    others_did_well: bool,
) -> Verdict | None:
    """What follows where the job failed as a whole; None where it did not, or was no job of the service's.

    What is called singly is refused by the call, at no record's cost, and how that goes tells nothing of jobs. Where
    others of the shard did well before, it is the ones that failed then which fail together now: they are the fault.
    """
    if job.kind != "batch":
        return None
    asked = np.fromiter(job.asked(), dtype=np.int64)
    reasons = rows.reasons_of(asked)
    if sum(reasons.values()) < len(asked):
        pipeline.ledger.close_breaker(pipeline.name)
        return None
    if others_did_well:
        return None
    answer = same_answer(reasons, len(asked))
    if answer is None:
        return None
    return judge_failure(pipeline, job, submission, answer, refused=rows.count_failed(asked) > 0)


def _begin_anew(pipeline: Pipeline, shard: ClaimedShard, description: JobDescription) -> Continued:
    """Queue a first job for the whole shard: what this one and those before it asked for is not asked for any more.

    Model, prompt or request have changed since it was rendered. What it has cost is not looked for:
    the most that it can have cost counts.
    """
    cost = description.bound_usd if description.kind == "batch" else 0.0
    pipeline.ledger.settle(pipeline.name, shard.claim.shard, description.fence, cost)
    continued = Continued(description.attempt, 0, description.records, {STALE: description.records})
    decided = decide_after_job(pipeline, description.attempt, JobEnd.OUTDATED)
    order = Order(fence=shard.claim.fence, attempt=1)
    if not queue_job(pipeline, shard.shard, shard.claim, order, (continued.summary, decided.reason)):
        raise ClaimLost(f"shard {shard.claim.shard}: claimed by somebody else meanwhile")
    return continued


def _load_kept(pipeline: Pipeline, shard: ClaimedShard, description: JobDescription, rows: JobRows) -> None:
    for fence in description.earlier:
        rows.load(pipeline.storage, paths.attempt_rows(description.shard, fence))
    if description.keep_fence is not None:
        load_commit(pipeline, shard.shard, description.keep_fence, rows)


def _fetch(
    pipeline: Pipeline, submission: SubmissionRow | None, job: JobDescription, rows: JobRows, facts: JobFacts
) -> None:
    executor = with_results(pipeline)
    found = None
    if submission is not None and submission.service_id is not None:
        found = executor.look_up(submission.service_id)
    ended = submission.ended_at if submission is not None else None
    waited = pipeline.ledger.now() - ended if ended is not None else float("inf")
    failed = found is not None and found.state is JobState.FAILED
    patience = results_patience(failed, pipeline.poll_seconds)
    try:
        executor.fetch(job, found, rows, facts, final=waited >= patience)
    except UnexpectedOutput as error:
        # The next job would write no better. This one's records go again once a person has mended it.
        pipeline.ledger.block(pipeline.name, str(error))
        cancel_active(pipeline)
        for ordinal in rows.unknown(np.fromiter(job.asked(), dtype=np.int64)).tolist():
            rows.again(ordinal, UNEXPECTED, str(error))
        facts.narrowed = True


def _answer(
    pipeline: Pipeline, job: JobRow, description: JobDescription, rows: JobRows, facts: JobFacts
) -> None:
    ledger, executor = pipeline.ledger, with_results(pipeline)
    if reached := ledger.reserve(pipeline.name, job.shard, job.fence, pipeline.budget):
        raise BudgetReached(reached)
    crash_point("cost-reserved")

    def pace(calls: int, per_minute: int) -> None:
        start = ledger.reserve_calls(executor.quota_group, calls, per_minute)
        pause(max(0.0, start - ledger.now()))

    executor.answer(description, rows, facts, pace)
    crash_point("records-answered")


def _continue(
    pipeline: Pipeline,
    shard: ClaimedShard,
    description: JobDescription,
    submission: SubmissionRow | None,
    left: _Left,
    decided: Decision,
) -> Continued:
    """Keep what is settled and queue a job for the rest, as was decided."""
    rows, facts = left.rows, left.facts
    claim, again = shard.claim, rows.ordinals_again()
    kept = rows.save(pipeline.storage, paths.attempt_rows(claim.shard, claim.fence))
    crash_point("rows-kept")
    counts, reasons = rows.counts, rows.reasons_again()
    marker = AttemptMarker(
        shard=claim.shard,
        fence=claim.fence,
        job=description.fence,
        attempt=description.attempt,
        service_job=submission.service_id or "" if submission is not None else "",
        embedded=counts.embedded,
        failed=counts.failed,
        again=counts.again,
        reasons=reasons,
        input_tokens=facts.input_tokens,
        output_tokens=facts.output_tokens,
        cost_usd=facts.cost_usd,
    )
    write_attempt(pipeline.storage, marker)
    crash_point("attempt-written")
    logger.debug("shard %s: %d rows kept in %s", claim.shard, kept.rows, kept.path)
    times = description.narrowed
    code = with_results(pipeline).narrowing
    narrowed = {ordinal: times.get(ordinal, 0) + 1 for ordinal in rows.ordinals_again(code).tolist()}
    order = Order(
        fence=claim.fence,
        attempt=description.attempt + decided.counts,
        ordinals=again.tolist(),
        narrowed=times | narrowed,
        earlier=(*description.earlier, claim.fence),
        keep_fence=description.keep_fence,
        failing_since=left.failing_since,
    )
    continued = Continued(
        description.attempt, counts.embedded + counts.failed, counts.again, reasons, left.waits
    )
    if not queue_job(pipeline, shard.shard, claim, order, (continued.summary, decided.reason)):
        raise ClaimLost(f"shard {claim.shard}: claimed by somebody else meanwhile")
    return continued


def _add_earlier(pipeline: Pipeline, description: JobDescription, facts: JobFacts) -> None:
    """A shard's tokens and cost are those of all its attempts."""
    for fence in description.earlier:
        attempt = read_attempt(pipeline.storage, description.shard, fence)
        if attempt is not None:
            facts.add(attempt.input_tokens, attempt.output_tokens, attempt.cost_usd)


def _seconds_of(submission: SubmissionRow | None, started: float) -> float:
    """How long the shard's last job took: at the service, as far as the ledger saw it, or here."""
    if submission is not None and submission.ended_at is not None:
        return max(submission.ended_at - submission.claimed_at, 0.001)
    return time.perf_counter() - started


def _job_name(description: JobDescription, submission: SubmissionRow | None) -> str:
    if submission is not None and submission.service_id:
        return submission.service_id
    return f"{description.shard}-{description.fence}"
