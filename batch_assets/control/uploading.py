"""Putting jobs into the queue of a deferred executor: requests rendered and uploaded under a claim.

First attempts of prepared shards, and what is left of collected ones (`job_collection.py`), both
come this way. Starting them is the control loop's.
"""

import time
from collections.abc import Sequence

from batch_assets.control.attempts import fail
from batch_assets.control.chaining import is_chained
from batch_assets.control.changed_settings import follow_settings
from batch_assets.control.keeping import load_commit
from batch_assets.control.leases import giving_back
from batch_assets.control.loop import take_turn
from batch_assets.control.pipeline import Pipeline, deferred
from batch_assets.crash_points import crash_point
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.marker import read_marker
from batch_assets.errors import (
    ConfigurationError,
    LedgerError,
    ModelError,
    SourceError,
    StorageError,
    SubmissionRefused,
)
from batch_assets.executors.jobs import JobDescription, write_description
from batch_assets.executors.service_jobs import Order
from batch_assets.ledger.rows import Claim
from batch_assets.ledger.states import State
from batch_assets.patience import pause
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import Cause
from batch_assets.sharding.plan import Shard
from batch_assets.storage.threads import map_in_order, threads_for

SECONDS_BETWEEN_TURNS = 5.0
ANSWER_SECONDS = 5.0
INTERRUPTED = "the run was told to end"
logger = plain_logger(__name__)


def upload_shards(pipeline: Pipeline, keys: Sequence[str]) -> list[str]:
    """Render and upload the first job of each prepared shard of `keys`; the keys queued by this call.

    A shard that somebody else has, or that is further on, is left as it is. One that cannot be
    rendered is given up with its reason, and costs no other one. Raises SubmissionRefused, with
    nothing uploaded, where the service refuses what this pipeline has in the queue already.
    """
    if pipeline.ledger.counts(pipeline.name)[State.QUEUED]:
        take_turn([pipeline])
    refuse_blocked(pipeline)
    shards = pipeline.plan_shards(keys)
    planned = [key for key in keys if key in shards]
    if deferred(pipeline).commits:
        # Nothing but a word for each is uploaded, and they go together.
        done = map_in_order(
            lambda key: _upload(pipeline, shards[key]), planned, threads_for(pipeline.storage)
        )
        queued = [key for key, so in zip(planned, done, strict=True) if so]
        take_turn([pipeline], gather=_more_may_come(pipeline))
        if queued:
            _await_answer(pipeline, queued[0])
            refuse_blocked(pipeline)
        return queued
    queued, turned = [], 0.0
    for key in planned:
        if not _upload(pipeline, shards[key]):
            continue
        queued.append(key)
        # At once after the first: what is wrong for every shard is to be known before the others are uploaded.
        if time.monotonic() - turned >= SECONDS_BETWEEN_TURNS:
            take_turn([pipeline])
            if len(queued) == 1:
                _await_answer(pipeline, key)
            refuse_blocked(pipeline)
            turned = time.monotonic()
    take_turn([pipeline])
    return queued


def _more_may_come(pipeline: Pipeline) -> bool:
    """Whether other shards are likely to be queued soon, by the next run of a backfill: they may share a submission.

    A stage's shards come one by one, each when it is ready, and are not to wait for each other.
    """
    counts = pipeline.ledger.counts(pipeline.name)
    return not is_chained(pipeline.settings) and bool(counts[State.PLANNED] or counts[State.PREPARED])


def _await_answer(pipeline: Pipeline, key: str) -> None:
    """Wait a while where another's turn has just made the call for this shard: its answer is for all of them."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        row = pipeline.ledger.shard(pipeline.name, key)
        if row is None or row.state is not State.SUBMITTING:
            return
        pause(0.1)


def refuse_blocked(pipeline: Pipeline) -> None:
    """Raise SubmissionRefused where nothing of this pipeline is submitted until a person has changed something."""
    follow_settings(pipeline)  # perhaps that has just been done
    refused = pipeline.ledger.money(pipeline.name).refused
    if refused:
        raise SubmissionRefused(refused)


def _upload(pipeline: Pipeline, shard: Shard) -> bool:
    ledger = pipeline.ledger
    claim = ledger.claim_preparation(pipeline.name, shard.key, pipeline.holder, place=pipeline.place)
    if claim is None:
        return False
    crash_point("preparation-claimed")
    try:
        row = ledger.shard(pipeline.name, shard.key)
        outdated = row.outdated_fence if row is not None else -1
        order = Order(claim.fence, claim.attempt, outdated_fence=outdated)
        if row is not None and row.keep_fence is not None and not deferred(pipeline).commits:
            order = _order_of_failed(pipeline, shard, claim, row.keep_fence)
        return queue_job(pipeline, shard, claim, order)
    except SourceError as error:
        fail(pipeline, claim, str(error), Cause.SOURCE)
        return False
    except (ModelError, ConfigurationError, StorageError, LedgerError) as error:
        with giving_back(error):
            ledger.release(claim, str(error))
        raise
    except Exception as error:
        logger.exception("shard %s failed", shard.key)
        fail(pipeline, claim, f"{type(error).__name__}: {error}")
        return False
    except BaseException as error:  # Ctrl-C, termination: somebody may go on at once
        with giving_back(error):
            ledger.release(claim, INTERRUPTED)
        raise


def queue_job(
    pipeline: Pipeline, shard: Shard, claim: Claim, order: Order, why: tuple[str, str] | None = None
) -> bool:
    """Render a job, describe it under the root, and queue it; False where the claim was lost meanwhile.

    `why`, where it is another one: what became of the last one, and what was decided.
    """
    description = deferred(pipeline).render(shard, order)
    crash_point("requests-written")
    write_description(pipeline.storage, description)
    crash_point("job-described")
    return enqueue(pipeline, claim, description, why)


def enqueue(
    pipeline: Pipeline, claim: Claim, description: JobDescription, why: tuple[str, str] | None = None
) -> bool:
    """Queue a job whose requests are uploaded and described."""
    queued = pipeline.ledger.enqueue(
        claim,
        kind=description.kind,
        records=description.records,
        bytes=description.bytes,
        bound_usd=description.bound_usd,
        digest=description.digest,
        outdated_fence=description.outdated_fence,
        why=why,
    )
    crash_point("job-queued")
    return queued


def _order_of_failed(pipeline: Pipeline, shard: Shard, claim: Claim, keep_fence: int) -> Order:
    """A job for the records of a commit that failed; the others' rows stay, where they are of the same model."""
    kept = read_marker(pipeline.storage, shard.key)
    if kept is not None and kept[0].fingerprint != pipeline.fingerprint:
        return Order(claim.fence, claim.attempt)
    with JobRows(shard.records) as rows:
        valid = load_commit(pipeline, shard, keep_fence, rows)
        left = rows.unknown(valid)
    return Order(claim.fence, claim.attempt, ordinals=left.tolist(), keep_fence=keep_fence)
