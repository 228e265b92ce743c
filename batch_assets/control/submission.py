"""Starting queued jobs while slots are free: the claim first, the call to the service after it.

The claim is one transaction of the ledger: a slot, the job, and the most that it can cost. A
crash between the two leaves an intent, which `reconciler.py` resolves.
"""

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from batch_assets import paths
from batch_assets.control.changed_settings import follow_settings
from batch_assets.control.descriptions import describe_all
from batch_assets.control.pipeline import Pipeline, deferred, with_workers
from batch_assets.control.pool_files import Member, read_pool, write_pool
from batch_assets.crash_points import crash_point
from batch_assets.errors import ConfigurationError, ModelError, StorageError, SubmissionRefused
from batch_assets.executors.jobs import JobDescription, JobKey, another_name
from batch_assets.executors.service_jobs import NameTaken, NotAsked, SlotsFull, Unanswered
from batch_assets.ledger.rows import JobRow, SubmissionRules, Waiting
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import NAMES_TRIED, UNANSWERED_IN_A_ROW, pause_after_rejection
from batch_assets.settings.executors import BatchServiceSettings

SECONDS = 20.0
"""A round of submissions ends after so long: a sensor's tick has 60."""

GATHER_SECONDS = 5.0
"""A submission of many jobs waits until no more have come for so long."""

_OF_ONE = re.compile(rf"({paths.SHARD_KEY})-(\d+)-[0-9a-f]{{6}}$")
"""How the name of a submission ends that carries one job."""

logger = plain_logger(__name__)


@dataclass
class Submitted:
    """What a round of submissions came to; `waiting` is why it went no further.

    `silent` are the pipelines of which a call had no answer, or whose store had none, with the reason.
    """

    started: int = 0
    waiting: Waiting | None = None
    refused: list[tuple[Pipeline, str]] = field(default_factory=list)
    silent: dict[str, str] = field(default_factory=dict)


def submit_queued(scope: str, pipelines: Sequence[Pipeline], most: int, *, gather: bool = True) -> Submitted:
    """Start at most `most` submissions of these pipelines' queued jobs, which share the slots of `scope`.

    Unless `gather`, one that takes many jobs takes those that there are.
    """
    ledger = pipelines[0].ledger
    for pipeline in pipelines:
        follow_settings(pipeline)
    by_name = {pipeline.name: pipeline for pipeline in pipelines}
    rules = {name: _rules(pipeline, gather) for name, pipeline in by_name.items()}
    done, unanswered = Submitted(), 0
    deadline = time.monotonic() + SECONDS
    while done.started < most and time.monotonic() < deadline:
        claim = ledger.claim_submission(scope, rules, lambda jobs: _named(by_name[jobs[0].pipeline], jobs))
        if isinstance(claim, Waiting):
            done.waiting = claim
            return done
        crash_point("submission-claimed")
        pipeline = by_name[claim.pipeline]
        try:
            start(pipeline, claim.token, claim.name, claim.jobs)
            done.started += 1
        except SlotsFull as error:
            done.waiting = Waiting("full", message=str(error))
            done.silent |= silence_of(pipeline, error)
            return done
        except SubmissionRefused as error:
            done.refused.append((pipeline, str(error)))
        except Unanswered as error:
            logger.info("submission %s: no answer (%s); it is looked for", claim.name, error)
            done.silent |= silence_of(pipeline, error)
            unanswered += 1
            if unanswered == UNANSWERED_IN_A_ROW:
                return done
    return done


def silence_of(pipeline: Pipeline, error: SlotsFull | Unanswered) -> dict[str, str]:
    """The pipeline, with the reason, where service or store did not answer `start`; none where they said "not now"."""
    if isinstance(error, Unanswered):
        return {
            pipeline.name: f"{deferred(pipeline).quota_group}: a job was asked for and no answer came ({error})"
        }
    return {pipeline.name: str(error)} if isinstance(error, NotAsked) else {}


def start(pipeline: Pipeline, token: str, name: str, jobs: Sequence[JobRow], *, unsure: bool = False) -> None:
    """Make the call of a claimed submission and tell the ledger what came of it.

    Raises SlotsFull or SubmissionRefused after giving the claim back, Unanswered with the intent
    left. `unsure`: the call was made before and its answer is not known, so that "slow down" says
    nothing about the job and the intent stays. Where another job has the name, the submission gets
    another one first, and the ledger is told before the service.
    """
    taken = ""
    for _ in range(NAMES_TRIED):
        try:
            _start(pipeline, token, name, jobs, unsure)
            return
        except NameTaken as error:
            taken, before, unsure = str(error), token, False
            token, name = hashlib.sha256(f"{token} {name}".encode()).hexdigest(), another_name(name)
            logger.warning("%s; it stays as it is, and the next name is %s", taken, name)
            if not pipeline.ledger.rename_submission(before, token, name):
                return  # somebody else has brought it on
    pipeline.ledger.refused(token, taken, block=taken)
    raise SubmissionRefused(
        f"{taken}; so were {NAMES_TRIED} names one after the other: name the pipeline otherwise"
    )


def _start(pipeline: Pipeline, token: str, name: str, jobs: Sequence[JobRow], unsure: bool) -> None:
    """The same under this name. Raises NameTaken with nothing done."""
    ledger, executor = pipeline.ledger, deferred(pipeline)
    # A worker's place in an array is its shard's place in this order, whoever makes the call.
    jobs = sorted(jobs, key=lambda job: (job.shard, job.fence))
    try:
        descriptions = _descriptions(pipeline, token, name, jobs)
        if descriptions is None:
            return
        if len(descriptions) > 1:
            write_pool(pipeline.storage, name, [(job.shard, job.fence) for job in descriptions])
            crash_point("pool-described")
        job_id = executor.submit(descriptions, token, name)
        crash_point("job-started")
    except NotAsked as error:
        if not unsure:
            ledger.refused(token, str(error))
        raise
    except SlotsFull as error:
        if unsure:
            raise
        rejections = ledger.scope(executor.quota_group).rejections
        pause = pause_after_rejection(rejections, pipeline.poll_seconds)
        ledger.refused(token, str(error), pause=pause)
        raise
    except (SubmissionRefused, ConfigurationError, ModelError) as error:
        ledger.refused(token, str(error), block=str(error))
        raise SubmissionRefused(str(error)) from error
    except FileNotFoundError as error:
        # Nothing was asked of the service yet: what was uploaded is gone, and is rendered again.
        _prepare_again(pipeline, token, name, f"{error} is gone", [job.shard for job in jobs])
        return
    except StorageError as error:
        if not unsure:
            ledger.refused(token, str(error))
        raise NotAsked(str(error)) from error
    ledger.submitted(token, job_id)
    crash_point("job-noted")


def _descriptions(
    pipeline: Pipeline, token: str, name: str, jobs: Sequence[JobRow]
) -> list[JobDescription] | None:
    """What the jobs ask for; None where one's is gone, or is not what would be asked now.

    No job of them is to be seen at the service: those are prepared again, and the others wait as they did.
    """
    executor = deferred(pipeline)
    described = describe_all(pipeline, jobs)
    descriptions = [each for each in described if each is not None]
    if again := [job.shard for job, each in zip(jobs, described, strict=True) if each is None]:
        more = f" and {len(again) - 1} more" if len(again) > 1 else ""
        why = f"what shard {again[0]}{more} is to ask for is gone"
    # Workers embed by what is asked for now; request files say what was asked for then.
    elif again := [] if executor.commits else _stale(descriptions, executor.fingerprint()):
        why = "it asks for another model or prompt than now"
    else:
        return descriptions
    _prepare_again(pipeline, token, name, why, again)
    return None


def _prepare_again(pipeline: Pipeline, token: str, name: str, why: str, shards: Sequence[str]) -> None:
    logger.warning("submission %s: %s; prepared again", name, why)
    if pipeline.ledger.refused(token, why):
        pipeline.ledger.prepare_again(pipeline.name, shards)


def _stale(descriptions: Sequence[JobDescription], fingerprint: str) -> list[str]:
    """The shards whose jobs were rendered under another fingerprint than this one."""
    return [each.shard for each in descriptions if each.fingerprint != fingerprint]


def members_of(pipeline: Pipeline, name: str) -> list[Member]:
    """The jobs (shard, fence) that a submission of this name carries, in its order."""
    if of_one := _OF_ONE.search(name):
        return [(of_one[1], int(of_one[2]))]
    if name not in pipeline.pools:
        members = read_pool(pipeline.storage, name)
        if not members:
            return []
        pipeline.pools[name] = members
    return pipeline.pools[name]


def _named(pipeline: Pipeline, jobs: Sequence[JobRow]) -> tuple[str, str]:
    return deferred(pipeline).submission_name([JobKey(job.shard, job.fence, job.digest) for job in jobs])


def _rules(pipeline: Pipeline, gather: bool) -> SubmissionRules:
    if deferred(pipeline).commits:
        workers = with_workers(pipeline)
        seconds = min(GATHER_SECONDS, pipeline.poll_seconds) if gather else 0.0
        return SubmissionRules(
            together=workers.array_jobs, alive=workers.alive, gather_seconds=seconds, place=pipeline.place
        )
    limits, settings = pipeline.executor.limits, pipeline.settings.executor
    assert isinstance(settings, BatchServiceSettings), settings.type
    return SubmissionRules(
        priority=settings.priority,
        budget=pipeline.budget,
        min_records=limits.min_records,
        max_records=limits.records,
        place=pipeline.place,
    )
