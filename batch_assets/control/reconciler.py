"""What the service says of all its jobs, brought into the ledger: states, slots, and calls without an answer.

One listing serves all of it. Events only say earlier what is found here anyway (`completion.py`);
new jobs are started in `submission.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from batch_assets.control.at_service import find_by_name
from batch_assets.control.descriptions import describe_all
from batch_assets.control.pipeline import Pipeline, deferred, with_results, with_workers
from batch_assets.control.submission import members_of, silence_of, start
from batch_assets.crash_points import crash_point
from batch_assets.errors import StorageError
from batch_assets.executors.base import JobState
from batch_assets.executors.service_jobs import NameTaken, ServiceJob, SlotsFull, Unanswered
from batch_assets.ledger.rows import JobRow, SubmissionRow
from batch_assets.ledger.states import State, SubmissionState
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import (
    DOUBLES_SECONDS,
    INTENT_SECONDS,
    INTENT_SECONDS_A_JOB,
    UNKNOWN_JOB_SECONDS,
)

FRESH_SECONDS = 5.0
"""A view of the slots older than this is renewed before a free one is used."""

CALM = 10.0
"""With a queue, polling only finds what events have lost: so many times more seldom."""

BY_ORDER = "stopped by order"
LOOKED_UP_AT_ONCE = 20
ACTIVE = (SubmissionState.SUBMITTING, SubmissionState.SUBMITTED, SubmissionState.RUNNING)
logger = plain_logger(__name__)


@dataclass
class Snapshots:
    """Listings of one turn: pipelines of one account and region share them."""

    by_place: dict[str, list[ServiceJob]] = field(default_factory=dict)

    def of(self, pipeline: Pipeline, since: float | None) -> list[ServiceJob]:
        executor = with_results(pipeline)
        place = executor.quota_group.rsplit("/", 1)[0]
        if place not in self.by_place:
            self.by_place[place] = executor.list_jobs(since)
        return self.by_place[place]


@dataclass
class Reconciled:
    """Submissions that have ended now; pipelines of which a call was made again and had no answer, with the reason."""

    ended: list[SubmissionRow] = field(default_factory=list)
    silent: dict[str, str] = field(default_factory=dict)


def is_due(pipeline: Pipeline, *, waiting: bool, heard: bool, now: float) -> bool:
    """Whether the service must be asked: at its interval, or before a slot that seems free is used.

    `heard`: events come, so that asking only finds what they have lost.
    """
    executor = deferred(pipeline)
    scope = pipeline.ledger.scope(executor.quota_group)
    if scope.observed_at is None:
        return True
    age = now - scope.observed_at
    active = len(pipeline.ledger.submissions(scope=executor.quota_group, states=ACTIVE))
    free = active + scope.foreign_jobs < executor.slots() and scope.paused_until <= now
    if waiting and free and age >= min(FRESH_SECONDS, pipeline.poll_seconds):
        return True
    interval = pipeline.poll_seconds * (CALM if heard else 1.0)
    return (active > 0 or waiting) and age >= interval


def reconcile_now(pipeline: Pipeline) -> Reconciled:
    """Ask the service whether or not it is due. Raises Unanswered."""
    return reconcile(pipeline, [pipeline], Snapshots(), pipeline.ledger.now())


def reconcile(
    pipeline: Pipeline, sharing: Sequence[Pipeline], snapshots: Snapshots, now: float
) -> Reconciled:
    """Bring one scope's submissions in line with the service.

    `sharing` are the pipelines at hand whose jobs share the scope. Raises Unanswered.
    """
    ledger, executor = pipeline.ledger, deferred(pipeline)
    scope = ledger.scope(executor.quota_group)
    ours = ledger.submissions(scope=executor.quota_group, states=ACTIVE)
    if executor.commits:
        known_ids = [submission.service_id for submission in ours if submission.service_id is not None]
        jobs = with_workers(pipeline).describe(known_ids)
    else:
        jobs = snapshots.of(pipeline, scope.oldest_active)
    by_id = {job.id: job for job in jobs}
    done = Reconciled()
    looked_up = 0
    for submission in ours:
        job = by_id.get(submission.service_id or "")
        if job is None and submission.service_id is not None and looked_up < LOOKED_UP_AT_ONCE:
            looked_up += 1
            job = executor.look_up(submission.service_id)
            # A service may need a moment before it knows what it has just taken.
            if job is None and now - submission.claimed_at >= UNKNOWN_JOB_SECONDS:
                job = ServiceJob(
                    submission.service_id, submission.name, "", JobState.FAILED,
                    "the service does not know this job any more",
                )  # fmt: skip
        if job is not None:
            note_children(submission, job, sharing)
            done.ended += note(pipeline, submission, job)
            _end_overdue(submission, job, sharing, now)
            _end_double(submission, job, sharing, now)
        elif submission.state is SubmissionState.SUBMITTING and _is_unanswered(submission, now):
            done.silent |= resolve(submission, sharing)
    known = {submission.service_id for submission in ours} | {submission.name for submission in ours}
    foreign = [
        job
        for job in jobs
        if not executor.commits
        and job.active
        and with_results(pipeline).is_same_model(job)
        and job.id not in known
        and job.name not in known
    ]
    for job in foreign:
        remember(job, sharing)
    active = [job.submitted_at for job in jobs if job.active]
    newest = max((job.submitted_at for job in jobs), default=None)
    # Whatever was submitted before the oldest active job has ended: the next listing may begin there.
    since = min(active) if active else newest
    ledger.set_scope(
        executor.quota_group,
        slots=min(deferred(each).slots() for each in sharing),
        foreign_jobs=len(foreign),
        observed_at=now,
        oldest_active=since - UNKNOWN_JOB_SECONDS if since is not None else scope.oldest_active,
    )
    return done


def _is_unanswered(submission: SubmissionRow, now: float) -> bool:
    """Whether whoever began to make the call must have ended by now."""
    return now - submission.claimed_at >= INTENT_SECONDS + INTENT_SECONDS_A_JOB * submission.jobs


def remember(job: ServiceJob, sharing: Sequence[Pipeline]) -> None:
    """Adopt a job of ours that the ledger believes was never taken: an answer said no, or none came."""
    for pipeline in sharing:
        executor = deferred(pipeline)
        if job.name.startswith(tuple(executor.name_prefixes)):
            refused = pipeline.ledger.submission_by_name(job.name)
            if refused is not None and refused.state is SubmissionState.REFUSED:
                carried = [
                    job_row
                    for member in members_of(pipeline, job.name)
                    if (job_row := pipeline.ledger.job(pipeline.name, *member)) is not None
                ]
                if carried and _asks_for(pipeline, job, carried):
                    logger.warning("submission %s runs at the service after all, as %s", job.name, job.id)
                    pipeline.ledger.adopt_submission(
                        refused.token, job.name, executor.quota_group, job.id, carried, job.submitted_at
                    )


def _asks_for(pipeline: Pipeline, job: ServiceJob, carried: Sequence[JobRow]) -> bool:
    """Whether the job is these jobs' submission, and not somebody else's of that name."""
    descriptions = [each for each in describe_all(pipeline, carried) if each is not None]
    # Where what was asked is not known any more, it is prepared anew.
    return len(descriptions) == len(carried) and deferred(pipeline).is_ours(job, descriptions)


def _end_overdue(submission: SubmissionRow, job: ServiceJob, sharing: Sequence[Pipeline], now: float) -> None:
    """Stop a job that runs longer than its pipeline allows: its bound counts on that. What is missing goes again."""
    owner = next((each for each in sharing if each.name == submission.pipeline), None)
    hours = owner.settings.executor.longest_job_hours if owner is not None else None
    if owner is None or hours is None or not job.active:
        return
    begun = job.began_at or job.submitted_at
    if begun and now - begun > hours * 3600:
        logger.warning("job %s runs for more than max_job_hours %g: it is stopped", job.name, hours)
        deferred(owner).stop(job.id)


def _end_double(submission: SubmissionRow, job: ServiceJob, sharing: Sequence[Pipeline], now: float) -> None:
    """End what a call without an answer may have started after all, where the same call was made again.

    Only a service that takes the same name twice has such a job, and it may show it late.
    """
    owner = next((each for each in sharing if each.name == submission.pipeline), None)
    since = submission.submitted_at
    if owner is None or since is None or not deferred(owner).commits or not job.active:
        return
    if since - submission.claimed_at >= INTENT_SECONDS and now - since <= DOUBLES_SECONDS:
        with_workers(owner).end_others(submission.name, job.id)


def note_children(submission: SubmissionRow, job: ServiceJob, sharing: Sequence[Pipeline]) -> None:
    """Tell the ledger which jobs of an array have ended, if more have than it knows.

    Before the end of the array is noted: that stands for those alone of which nothing is told.
    """
    owner = next((each for each in sharing if each.name == submission.pipeline), None)
    if owner is None or submission.jobs < 2 or not deferred(owner).commits:
        return
    if job.active and job.children <= owner.ledger.ended_jobs(submission.token):
        return
    members = members_of(owner, submission.name)
    # What was ended with its array by order did not fail: the array's end stands for it.
    ordered = submission.message == BY_ORDER or job.state is JobState.STOPPED
    ended = {
        members[place]: State(state.value)
        for place, state in with_workers(owner).children(job.id).items()
        if place < len(members) and (not ordered or state is JobState.SUCCEEDED)
    }
    if ended:
        owner.ledger.observe_jobs(submission.token, ended)
        crash_point("workers-noted")


def note(pipeline: Pipeline, submission: SubmissionRow, job: ServiceJob) -> list[SubmissionRow]:
    """Tell the ledger what the service says of a submission; the submission, if it has ended by that."""
    state = SubmissionState(job.state.value)
    if state is SubmissionState.FAILED and submission.message == BY_ORDER:
        state = SubmissionState.STOPPED  # not every service tells the two apart
    if state is submission.state and submission.service_id:
        return []
    ended_at = pipeline.ledger.now() if not job.active else None
    # That it was stopped by order matters later: it costs no attempt.
    message = None if submission.message == BY_ORDER else job.message or None
    pipeline.ledger.observe(
        submission.token, state, message=message, ended_at=ended_at, service_id=job.id or None
    )
    crash_point("state-noted")
    found = pipeline.ledger.submission(submission.token)
    return [found] if found is not None and found.state not in ACTIVE else []


def resolve(submission: SubmissionRow, sharing: Sequence[Pipeline]) -> dict[str, str]:
    """A call of which no answer is known: adopt the job if it exists, else make the same call again.

    The token is the same, so a job that exists after all is not started twice. After an order to
    stop, or where the pipeline is refused for good, no call is made. Returns the pipeline, with
    the reason, where there is no answer this time either.
    """
    pipeline = next((each for each in sharing if each.name == submission.pipeline), None)
    if pipeline is None:
        return {}  # another process has this pipeline's settings
    ledger = pipeline.ledger
    jobs = ledger.jobs_of(submission.token)
    if not jobs:
        # Somebody else has brought it on since it was read; or the ledger has let go of the pipeline's jobs, and
        # without a call its slot is free: one that exists after all is counted as others' are.
        if ledger.submission(submission.token) == submission:
            ledger.refused(submission.token, "the ledger knows no jobs of it any more")
        return {}
    try:
        found = find_by_name(pipeline, submission.name, describe_all(pipeline, jobs))
    except NameTaken:
        found = None  # the call below tells what follows from that
    except StorageError as error:
        logger.info("submission %s: %s", submission.name, error)
        return {pipeline.name: str(error)}
    if found is not None:
        logger.info("submission %s: found at the service as %s", submission.name, found.id)
        note(pipeline, submission, found)
        return {}
    refused = BY_ORDER if ledger.stop_requested(pipeline.name) else ledger.money(pipeline.name).refused
    if refused is not None:
        # Should it turn up after all, `remember` adopts it.
        ledger.refused(submission.token, refused)
        return {}
    try:
        start(pipeline, submission.token, submission.name, jobs, unsure=True)
    except (SlotsFull, Unanswered) as error:
        logger.info("submission %s: %s", submission.name, error)
        return silence_of(pipeline, error)
    return {}
