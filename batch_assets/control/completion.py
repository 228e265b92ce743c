"""Events: wake-ups that say which job to ask about. What they say of its state is not believed.

They may be lost, doubled, late, out of order, or of somebody else's jobs; nothing of that
changes anything but how early an end is noticed.
"""

from collections.abc import Sequence

from batch_assets.control.pipeline import Pipeline, deferred
from batch_assets.control.reconciler import ACTIVE, note, note_children
from batch_assets.ledger.rows import SubmissionRow
from batch_assets.plain_text import plain_logger

EVENTS_A_TURN = 100
SEEN_AT_MOST = 5
logger = plain_logger(__name__)


def drain_events(sharing: Sequence[Pipeline]) -> tuple[list[SubmissionRow], bool]:
    """Ask about every job whose end an event tells of, then delete the events; all of `sharing` have one queue.

    What is no event of a job stays in the queue: it is not for us.

    Returns the submissions that have ended, and whether others' jobs were among the events: a
    slot of theirs may be free. Raises Unanswered, with the events still in the queue.
    """
    ledger, executor = sharing[0].ledger, deferred(sharing[0])
    by_name = {pipeline.name: pipeline for pipeline in sharing}
    events = executor.events(EVENTS_A_TURN)
    ended: list[SubmissionRow] = []
    others, early = False, set[str]()
    # A job in one batch of events is asked about once, however many there are, and only for its end:
    # where else it stands is told by the next list, and asking each time would double the calls.
    ends = (event.job_id for event in events if event.job_id is not None and not event.under_way)
    for job_id in dict.fromkeys(ends):
        submission = ledger.submission_by_service_id(job_id)
        others |= submission is None
        if submission is None or submission.state not in ACTIVE:
            continue  # somebody else's job, or one whose end is known
        owner = by_name.get(submission.pipeline)
        if owner is None:
            early.add(job_id)  # a pipeline's that another process has at hand
            continue
        job = deferred(owner).look_up(job_id)
        if job is not None:
            note_children(submission, job, [owner])
            ended += note(owner, submission, job)
        # Of an array most events tell of a child, so that it goes on is no contradiction.
        if job is not None and job.active and submission.jobs < 2:
            early.add(job_id)
    # An event may be ahead of the service's own answers: it stays in the queue for a while, and comes again.
    ahead = {event.receipt for event in events
             if event.job_id in early and not event.under_way and event.seen < SEEN_AT_MOST}  # fmt: skip
    known = [event for event in events if event.job_id is not None]
    if len(known) < len(events):
        logger.warning(
            "queue %s: %d messages are no events of jobs, so they are left there; is it a queue of another program?",
            sharing[0].queue_url,
            len(events) - len(known),
        )
    executor.delete_events([event for event in known if event.receipt not in ahead])
    return ended, others
