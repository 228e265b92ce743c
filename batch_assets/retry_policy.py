"""Every limit, pause, forgiveness and back-off: the numbers, and what is decided by them about attempts.

Whoever acts asks here and acts elsewhere: `patience.py` waits for what is away, tenacity pauses between tries, and the
ledger records each decision about a shard with its reason (`ledger/story.py`). Nothing here sleeps, reads or writes.

Two kinds of failure are told apart by whoever meets them. What is *away* (no connection, no answer, a server's own
error, "slow down", credentials that have expired) may be there again in a while: it is waited for, with a word now and
then, and given up with a LastingStorageError. What is *wrong* (no access, no such bucket, a host that nobody knows at
the first touch) is said at once.
"""

from dataclasses import dataclass
from enum import StrEnum

# What does not answer: a store, a service, a database.
AWAY_SECONDS = 300.0
"""So long what has answered before is waited for."""
FIRST_ANSWER_SECONDS = 30.0
"""So long what has never answered this process: its address may be wrong, and somebody may sit at the terminal."""
TICK_SECONDS = 2.0
"""So long in a sensor's tick or a turn of the control loop, which comes again by itself."""
ANSWER_SECONDS = 30.0
"""No try waits longer for one answer: what a try took beyond that was work."""
SILENT_SECONDS = 5.0
"""A wait that is over by then is not worth a word."""
LOOK_SECONDS = 0.25
"""How often a pause that can be ended looks whether it is."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 15.0
SPEAK_SECONDS = 30.0
"""Between two words about one long wait."""

DATABASE_FIRST_PAUSE_SECONDS, DATABASE_LONGEST_PAUSE_SECONDS = 0.02, 1.0
"""Between two tries at the ledger's database, of random lengths, growing: writers take turns of milliseconds."""
BUSY_SECONDS = 30.0
"""So long SQLite itself waits for a file that another process locks."""

# Who is taken for dead.
HEARTBEAT_SECONDS = 10.0
GRACE_SECONDS = 2 * HEARTBEAT_SECONDS
"""So long after the ledger's database is back: whoever lives has renewed its leases by then."""
LEASE_SECONDS = 60.0
RUN_SECONDS = 5 * LEASE_SECONDS
"""After so long without a heartbeat a run is dead that this host cannot see."""
BETWEEN_STEPS_SECONDS = 3_600.0
"""So long may a run be silent after a step of ours: a step of others beats for nobody."""
HELD_SECONDS = 1.0
"""Between two looks at what another process has."""

# Attempts at a shard, beside `executor.max_attempts`.
LOSSES_FORGIVEN = 5
"""So many lost machines cost a shard no attempt, in one call; one that takes down more of them may be why."""
DEATHS_FORGIVEN = 10
"""So many processes may be killed at a shard, beside its attempts, before it is taken for the one that kills them."""
PASSES_WITHOUT_PROGRESS = 5
"""So many passes of `batch-assets run` may end with no shard done and no attempt spent."""
COLLECTION_PAUSE_SECONDS, LONGEST_COLLECTION_PAUSE_SECONDS = 30.0, 3_600.0
"""How long a finished job is left alone after the first failure to collect it; then twice as long, and so on."""
FREE_CUTS = 5
"""A job that comes closer costs no attempt, so often; from 100,000 records to one alone it takes three cuts."""

# Results that are not to be seen yet, by the time since the job ended: the longer of seconds and polls.
RESULTS_SECONDS, RESULTS_POLLS = 60.0, 10
FAILED_RESULTS_SECONDS, FAILED_RESULTS_POLLS = 15.0, 3
"""A failed job may owe nothing more, and each of the cuts that look for a bad record waits anew."""

# Calls that start a job at a service.
REJECTED_PAUSE_SECONDS, LONGEST_REJECTED_PAUSE_SECONDS = 2.0, 300.0
"""After "slow down" nothing is submitted for so long, twice as long after each further one, until a job ends."""
UNANSWERED_IN_A_ROW = 3
"""So many calls of one round may go without an answer."""
NAMES_TRIED = 5
"""So many names one after the other may be another job's."""
INTENT_SECONDS, INTENT_SECONDS_A_JOB = 15.0, 0.01
"""A call without an answer is made again after so long; one for many jobs takes its time to be put together."""
UNKNOWN_JOB_SECONDS = 60.0
"""A service may need so long before it knows the job that it has just taken."""
DOUBLES_SECONDS = 600.0
"""So long a first call without an answer may still show the job that it has started after all."""

# A Ray cluster.
ROOM_SECONDS = 30 * 60.0
"""Without a place for any worker, so long: an autoscaler has brought its nodes by then."""
LOADING_SECONDS = 2 * 3600.0
"""Without any that has loaded the model, so long: a large one comes over a slow line in that time."""
DEATHS_IN_LOADING = 3
"""So many workers in a row that die while they load the model: then it is the model."""
LOSSES_IN_A_ROW = 3
"""So often Ray may be lost before a worker has ended a shard: then it will be lost each time."""
LEAVE_SECONDS = 30.0
END_SECONDS = 5.0
"""So long a worker may take to give its shard up before it is killed, and calls to end before the process does."""
CLUSTER_PAUSE_SECONDS = 5.0
CLUSTER_RETURN_SECONDS = 300.0
"""So long a cluster that is gone may take to come back: a head is started again in that time."""

# A model server.
REFUSING_SECONDS = 3600.0
"""So long a server may have no room for any call of ours: its other traffic has its peaks."""

# Messages of a queue, as llm-d's worker tries them again.
MESSAGE_FIRST_PAUSE_SECONDS, MESSAGE_LONGEST_PAUSE_SECONDS = 2.0, 60.0
MESSAGE_TRIES = 20
"""Of a message without a deadline: a quarter of an hour and more. One that has a deadline is tried until then."""
CALLS_FAILED_IN_A_ROW = 16
"""So many failed calls without an answer between them, or the calls in flight where those are more: the server is ill,
and a message at a time asks whether it is well again."""

# Single records.
CALL_TRIES = 7
"""At a model that is called record by record."""
CALL_FIRST_PAUSE_SECONDS, CALL_LONGEST_PAUSE_SECONDS = 0.5, 15.0
IMAGE_TRIES, IMAGE_SECONDS = 4, 60.0
"""No try is begun later: a server that is slow every time would hold up the records behind it for minutes."""
IMAGE_FIRST_PAUSE_SECONDS, IMAGE_LONGEST_PAUSE_SECONDS = 0.5, 8.0
LONGEST_RETRY_AFTER_SECONDS = 30.0
"""A server that asks for a longer pause is asked again after this one."""
HOST_FAILURES, HOST_REST_SECONDS = 24, 60.0
"""A host that has failed so often in a row is left alone for so long."""
WHOLE_FAILURES_IN_A_ROW = 2
"""So many jobs of a service that failed as a whole, but lost no record for good, are followed by a probe."""
FEWEST_RECORDS_OF_WHOLE = 2
"""One record alone that is refused tells nothing of the others; a job that failed does, however small it was."""
WHOLE_FAILURES_OF_ARRAY, WHOLE_FAILURES_OF_ARRAY_SHARE = 10, 10
"""So many jobs of one submission, and at least one in so many, fail before those under way are ended for it."""
RECORDS_FAILED_IN_A_ROW = 64
"""So many single records without a success between them: then it is no single record's fault."""

# What tells others, and what is asked of Dagster.
HOOK_TRIES, HOOK_FIRST_PAUSE_SECONDS, HOOK_PAUSES_GROW_BY = 3, 0.5, 3
WEBHOOK_PAUSES_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Between the tries to tell of a request's end, as Standard Webhooks proposes: three days, then it is given up."""
WEBHOOK_CLAIM_SECONDS = 60.0
"""After so long another server takes what one had begun to send."""
RUN_ASKED_AGAIN_SECONDS = 600
"""A run of a sensor's that did not come is asked for again after so long."""
MERGE_ASKED_AGAIN_SECONDS, MERGE_ASKED_AGAIN_BY_ORDER_SECONDS = 3600.0, 600.0
"""A merge that failed is asked for again after so long: somebody waits for an order's."""
NEW_INPUT_ASKED_AGAIN_SECONDS = 600.0
SINGLE_FILE_TRIES = 5
"""So often may something else be published while the single file is written."""

# The processes that compute single requests, and the hooks that are told of their ends.
CHILD_FIRST_PAUSE_SECONDS, CHILD_LONGEST_PAUSE_SECONDS = 1.0, 60.0
"""A process that has ended by itself is started again after a pause, which doubles."""
CHILD_STEADY_SECONDS = 300.0
"""One that has worked for so long begins with the shortest pause again."""

# Steps that another process may come in between, done again.
ATTACH_TRIES, MANIFEST_TRIES, MERGE_TRIES = 10, 5, 3
SETTLE_SECONDS = 120.0
"""So long an order to stop waits until the service says that its jobs have ended."""
QUIET_SECONDS = 60.0
"""An upstream of which nothing has moved for so long, and nothing is held or queued, stands still."""


class Cause(StrEnum):
    """Why work on a shard came to nothing."""

    FAILED = "failed"  # by what this shard is, or for no known reason
    WORKER_DIED = "worker died"  # what computed it was killed: it may be the shard
    MACHINE_LOST = "machine lost"  # with all that ran on it
    SOURCE = "source"  # its input cannot be read: the same files again cannot help
    SPENT = "spent"  # somebody else has counted its attempts


class JobEnd(StrEnum):
    """What the end of a service's job says of the records that it leaves to be tried again."""

    LEFT = "left"  # they were tried, and came to nothing
    NARROWED = "narrowed"  # what is wrong is closer: in smaller objects, or known to a person
    STOPPED = "stopped"  # by a person's order
    HELD_BACK = "held back"  # it failed as a whole, like others: the settings may be why
    OUTDATED = "outdated"  # model, prompt or request have changed since


@dataclass(frozen=True)
class Decision:
    """Whether something is done again, after how many seconds, whether it counts as an attempt; `reason` says why."""

    again: bool
    counts: bool
    reason: str
    pause: float = 0.0


def after_failure(attempt: int, max_attempts: int, cause: Cause, lost: int = 0) -> Decision:
    """After the `attempt`-th attempt at a shard; `lost` machines were forgiven before."""
    if cause is Cause.MACHINE_LOST and lost < LOSSES_FORGIVEN:
        told = f"lost machine {lost + 1} of {LOSSES_FORGIVEN} that cost no attempt; another worker takes it at once"
        return Decision(True, False, told)
    return _counted(attempt, max_attempts, cause)


def after_collection(failures: int, max_attempts: int) -> Decision:
    """After a shard could not be prepared or collected, and `failures` times before: at no attempt, but bounded."""
    pause = min(COLLECTION_PAUSE_SECONDS * 2 ** min(failures, 30), LONGEST_COLLECTION_PAUSE_SECONDS)
    told = f"failure {failures + 1} of {max_attempts} in a row"
    if failures + 1 < max_attempts:
        return Decision(True, False, f"{told}; tried again after {pause:,.0f} s, at no attempt", pause)
    return Decision(False, False, f"{told}; given up")


def after_job(attempt: int, max_attempts: int, end: JobEnd) -> Decision:
    """After the `attempt`-th job of a shard at a service has ended and left records to be tried again."""
    if end is JobEnd.OUTDATED:
        return Decision(True, False, "model, prompt or request have changed since; begun anew")
    if end is JobEnd.STOPPED:
        return Decision(True, False, "stopped by order, which costs no attempt; tried again")
    if end is JobEnd.HELD_BACK:
        return Decision(
            True, False, "it failed as a whole, which costs no attempt; tried again once jobs do well"
        )
    if end is JobEnd.NARROWED:
        return Decision(True, False, "it comes closer to what is wrong, which costs no attempt; tried again")
    return _counted(attempt, max_attempts, Cause.FAILED)


def message_pause(
    attempts: int, retry_after: float | None, left: float | None, chance: float
) -> float | None:
    """Seconds until a message is tried again after `attempts` tries, None where it is given up.

    `left` seconds remain until its deadline, `chance` is a random number from 0 to 1. Half of the pause is of random
    length, as in llm-d; a server's Retry-After counts where it is longer, but takes no more than half of what is left.
    """
    if left is None and attempts >= MESSAGE_TRIES:
        return None
    longest = min(MESSAGE_FIRST_PAUSE_SECONDS * 2 ** min(attempts, 30), MESSAGE_LONGEST_PAUSE_SECONDS)
    pause = longest * (0.5 + 0.5 * chance)
    asked = min(retry_after or 0.0, AWAY_SECONDS if left is None else left / 2)
    if asked > pause:
        pause = asked * (1 + 0.25 * chance)
    return pause if left is None else min(pause, max(left, 0.0))


def after_deaths(attempt: int, max_attempts: int) -> Decision:
    """Before the `attempt`-th attempt in place: failures are judged as they come, killed processes only here."""
    again = attempt <= max_attempts + DEATHS_FORGIVEN
    return Decision(again, True, "tried again" if again else f"{attempt - 1} processes died at it; given up")


def is_free_cut(comes_closer: bool, cuts: int) -> bool:
    """Whether a failed job that leads to smaller objects costs no attempt; its records have had so many `cuts`."""
    return comes_closer and cuts < FREE_CUTS


def is_refused_alone(records: int, failures: int, max_attempts: int) -> bool:
    """Whether a record is what breaks its object: alone in it, and in as many failed ones as there are attempts."""
    return records == 1 and failures >= max_attempts


def whole_failures_that_last(jobs: int) -> int:
    """After so many failures as a whole, and none that did well, one of a submission of `jobs` jobs ends all others.

    One job alone is as good as a probe; those of an array may meet the same bad machine or shards.
    """
    if jobs == 1:
        return 1
    return max(WHOLE_FAILURES_OF_ARRAY, jobs // WHOLE_FAILURES_OF_ARRAY_SHARE)


def pause_after_rejection(rejections: int, poll_seconds: float) -> float:
    """Seconds in which nothing is submitted after "slow down", the service having said so `rejections` times before."""
    first = min(REJECTED_PAUSE_SECONDS, poll_seconds)
    return min(first * 2 ** min(rejections, 30), LONGEST_REJECTED_PAUSE_SECONDS)


def results_patience(job_failed: bool, poll_seconds: float) -> float:
    """Seconds after a job's end in which results that are not to be seen may still come."""
    if job_failed:
        return max(FAILED_RESULTS_SECONDS, FAILED_RESULTS_POLLS * poll_seconds)
    return max(RESULTS_SECONDS, RESULTS_POLLS * poll_seconds)


def _counted(attempt: int, max_attempts: int, cause: Cause) -> Decision:
    if cause is Cause.SOURCE:
        return Decision(
            False, True, "given up: to read the same again cannot help; mend the source, then retry"
        )
    told = f"attempt {attempt} of {max_attempts}"
    if cause is not Cause.SPENT and attempt < max_attempts:
        return Decision(True, True, f"{told}; tried again")
    return Decision(False, True, f"{told}; given up, attempts are spent")
