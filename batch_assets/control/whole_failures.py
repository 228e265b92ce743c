"""Whether a job failed as a whole: no record of it did well, and all for one and the same reason.

A pure decision over what became of the job's records. What follows from it is in `breaker.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from batch_assets.embeddings.reason_codes import (
    EXPIRED,
    JOB_EXPIRED,
    JOB_FAILED,
    JOB_LOST,
    JOB_STOPPED,
    MISSING,
    NOT_PROCESSED,
    SERVICE,
    TOO_LONG,
    UNEXPECTED,
)
from batch_assets.executors.aws.passing import is_passing, is_passing_code
from batch_assets.notifications.events import gist
from batch_assets.retry_policy import FEWEST_RECORDS_OF_WHOLE

# Nobody has looked at these records, or what is wrong with them is known to be their own.
_NO_ANSWER = frozenset(
    {EXPIRED, JOB_EXPIRED, JOB_LOST, JOB_STOPPED, MISSING, NOT_PROCESSED, TOO_LONG, UNEXPECTED}
)


@dataclass(frozen=True)
class SameAnswer:
    """What all records of a job were answered: `message` is the service's, as the most of them have it.

    `alike` is the same without what differs from record to record; `of_job` that it is of the job itself.
    """

    message: str
    alike: str
    of_job: bool


def same_answer(reasons: Mapping[tuple[str, str], int], asked: int) -> SameAnswer | None:
    """The one answer that all `asked` records of a job got; None where any did well, or they got several.

    `reasons` are (code, message) → records.
    """
    if not reasons or sum(reasons.values()) < asked:
        return None
    code, message = max(reasons, key=lambda reason: reasons[reason])
    answer = SameAnswer(message, f"{code}:{gist(message)}", of_job=code == JOB_FAILED)
    if code in _NO_ANSWER or (asked < FEWEST_RECORDS_OF_WHOLE and not answer.of_job):
        return None
    # What the service cannot do now it may do in a while: no setting is at fault.
    if is_passing_code(code.removeprefix(SERVICE)) or is_passing(message):
        return None
    return answer if {f"{each}:{gist(said)}" for each, said in reasons} == {answer.alike} else None
