"""Collecting shards: claim, compute or fetch, commit — each shard once.

How results of a service's job are joined is in `job_collection.py`, how a commit is made in
`committing.py`.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from batch_assets.control.attempts import decide_after_deaths, fail
from batch_assets.control.committing import ClaimedShard, attempt_at, bring_to_commit
from batch_assets.control.doubted_commits import doubted_commit
from batch_assets.control.job_collection import Continued, collect_job
from batch_assets.control.leases import exclusive, giving_back
from batch_assets.control.pipeline import Pipeline, adopt_marker, deferred, runner
from batch_assets.control.retrying import recompute_shards
from batch_assets.control.shard_result import Result, ShardResult, unclaimed_shard
from batch_assets.control.spending import paying
from batch_assets.control.together import Together, each
from batch_assets.control.uploading import INTERRUPTED
from batch_assets.control.worker_collection import AttemptsSpent, continue_shard, settle_worker
from batch_assets.crash_points import crash_point
from batch_assets.embeddings.accounting import account_shard
from batch_assets.embeddings.marker import ShardMarker, read_marker
from batch_assets.errors import (
    AccountingError,
    BudgetReached,
    ClaimLost,
    ClusterLost,
    ConfigurationError,
    LedgerError,
    ModelError,
    SourceError,
    StorageError,
    SubmissionRefused,
)
from batch_assets.executors.base import Cancelled, WorkerDied
from batch_assets.executors.service_jobs import ResultsNotReady, Unanswered
from batch_assets.ledger.rows import Claim, ShardRow
from batch_assets.ledger.states import State
from batch_assets.patience import is_ended
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import SPEAK_SECONDS, Cause
from batch_assets.sharding.plan import Shard
from batch_assets.worker.attempt import Processed

MOST_FINISHED = 100_000

logger = plain_logger(__name__)


class _StopRequested(Exception):
    """Somebody ordered the pipeline to stop while a shard was computed."""


def collect_shards(
    pipeline: Pipeline,
    keys: Sequence[str],
    *,
    recompute: bool = False,
    run_id: str | None = None,
    done_by: Collection[str] = (),
) -> Iterator[ShardResult]:
    """Bring every shard of `keys` as far as it goes now; yields each as it ends.

    An executor with room for several jobs works on as many shards at once, in threads.
    `recompute` embeds again what is committed, unless a run of `done_by` did so. An error that
    no other shard would escape (the model, the configuration, a store) is raised, with all claims
    given back; so they are where the generator is closed, or the caller interrupted.
    """
    fingerprint = pipeline.fingerprint
    pipeline.ledger.check_place(pipeline.name, pipeline.place)
    if recompute:
        recompute_shards(pipeline.ledger, pipeline.name, keys, done_by, pipeline.place)
    planned = pipeline.plan_shards(keys)
    rows = pipeline.ledger.shards(pipeline.name, keys=keys)
    computes = any(row.state is not State.COLLECTED for row in rows)
    at_once = pipeline.executor.at_once() if computes else 1
    together = Together()

    def collect(key: str) -> ShardResult:
        if key in planned:
            return _collect_shard(pipeline, planned[key], fingerprint, run_id, together)
        text = f"shard {key} is in no plan of pipeline {pipeline.name}; materialize shard_plan first"
        return ShardResult(key, Result.NOT_READY, message=text)

    with _device(pipeline) if computes else contextlib.nullcontext():
        yield from each(collect, keys, at_once, together)


def collectable(pipeline: Pipeline, keys: Sequence[str], kind: str | None = None) -> list[str]:
    """Those of `keys` whose job (of this kind) has ended and that nobody has collected; calls one by one last."""
    wanted = set(keys)
    rows = [row for row in pipeline.ledger.finished(pipeline.name, MOST_FINISHED) if row.key in wanted]
    called = [row.key for row in rows if row.state is State.READY and kind != "batch"]
    return [row.key for row in rows if row.state is not State.READY and kind != "on_demand"] + called


def _device(pipeline: Pipeline) -> contextlib.AbstractContextManager[None]:
    """The lease of the device, or server, that only one process may compute on."""
    device = pipeline.executor.exclusive_device()
    if device is None:
        return contextlib.nullcontext()
    # A server is the same from wherever it is called.
    name = device if "://" in device else f"{device} of {pipeline.holder.host}"
    return exclusive(pipeline.ledger, name, pipeline.holder)


def _collect_shard(
    pipeline: Pipeline, shard: Shard, fingerprint: str, run_id: str | None, together: Together
) -> ShardResult:
    """How the shard ends; where a worker dies of it or with it, another takes it up at once."""
    for lost in itertools.count():
        try:
            return _attempt(pipeline, shard, fingerprint, run_id, together, lost)
        except WorkerDied as error:
            logger.warning("shard %s: %s; another worker takes it", shard.key, error)
    raise AssertionError


def _attempt(
    pipeline: Pipeline,
    shard: Shard,
    fingerprint: str,
    run_id: str | None,
    together: Together,
    lost: int,
) -> ShardResult:
    """Claim the shard and bring it on. Raises WorkerDied where an attempt is left, with the claim given back.

    `lost` machines were lost at it before, in this call.
    """
    ledger, key = pipeline.ledger, shard.key
    together.demand_going_on()
    ledger.check_place(pipeline.name, pipeline.place)
    before = ledger.shard(pipeline.name, key)
    committed = _committed(pipeline, shard, fingerprint, before)
    if committed is not None:
        by_worker = before is not None and before.state is not State.COLLECTED and _commits(pipeline)
        if by_worker:
            settle_worker(pipeline, committed)
        return ShardResult(key, Result.COLLECTED if by_worker else Result.VERIFIED, committed)
    if ledger.stop_requested(pipeline.name):
        text = f"shard {key}: pipeline {pipeline.name} was stopped; `batch-assets run` goes on"
        return ShardResult(key, Result.STOPPED, message=text)
    claim = ledger.claim(pipeline.name, key, pipeline.holder, run_id, place=pipeline.place)
    if claim is None:
        return unclaimed_shard(ledger.shard(pipeline.name, key), key)
    crash_point("shard-claimed")
    if pipeline.executor.in_place and not decide_after_deaths(pipeline, claim.attempt).again:
        # Failures are judged where they happen; what takes its process down with it is seen only here.
        text = (
            f"shard {key}: {claim.attempt - 1} processes died while they embedded it, so a record of it may be why; "
            f"`batch-assets retry {pipeline.name} {key}` tries it again"
        )
        fail(pipeline, claim, text, Cause.SPENT)
        return ShardResult(key, Result.EXHAUSTED, message=text)
    try:
        return _bring_on(pipeline, shard, claim, fingerprint, together)
    except (
        ModelError,
        ConfigurationError,
        StorageError,
        LedgerError,
        SubmissionRefused,
        ClusterLost,
        Cancelled,
    ) as error:
        with giving_back(error):
            ledger.release(claim, str(error) or INTERRUPTED)
        raise
    except SourceError as error:
        # Reading the same files again cannot help: a person must mend the source, then `retry`.
        fail(pipeline, claim, str(error), Cause.SOURCE)
        return ShardResult(key, Result.EXHAUSTED, message=f"shard {key}: {error}")
    except WorkerDied as error:
        # It may have died behind its commit.
        committed = _committed(pipeline, shard, fingerprint)
        if committed is not None:
            return ShardResult(key, Result.COLLECTED, committed)
        text = f"shard {key}: {error}"
        cause = Cause.MACHINE_LOST if error.machine_lost else Cause.WORKER_DIED
        if fail(pipeline, claim, text, cause, lost) is not State.EXHAUSTED:
            raise
        return ShardResult(key, Result.EXHAUSTED, message=text)
    except Exception as error:
        logger.exception("shard %s failed", key)
        text = f"shard {key}: {type(error).__name__}: {error}"
        state = fail(pipeline, claim, text)
        result = Result.EXHAUSTED if state is State.EXHAUSTED else Result.RETRYING
        return ShardResult(key, result, message=text)
    except BaseException as error:  # Ctrl-C, termination, a closed generator: somebody may go on at once
        with giving_back(error):
            ledger.release(claim, INTERRUPTED)
        raise


def _bring_on(
    pipeline: Pipeline, shard: Shard, claim: Claim, fingerprint: str, together: Together
) -> ShardResult:
    """What becomes of a claimed shard, failures aside."""
    ledger, key = pipeline.ledger, shard.key
    # Looked for again under the claim: its last holder may have committed in between.
    committed = _committed(pipeline, shard, fingerprint)
    if committed is not None:
        return ShardResult(key, Result.VERIFIED, committed)
    try:
        row = ledger.shard(pipeline.name, key)
        claimed = ClaimedShard(shard, claim, fingerprint, row.outdated_fence if row is not None else -1)
        if pipeline.executor.in_place:
            ended = _run(pipeline, claimed, together)
        elif _commits(pipeline):
            ended = continue_shard(pipeline, claimed)
        else:
            ended = collect_job(pipeline, claimed)
    except (ResultsNotReady, Unanswered, BudgetReached) as error:
        if pipeline.executor.in_place:  # others may be under way, and are paid for
            ledger.release(claim, str(error))
            return ShardResult(key, Result.NOT_READY, message=f"shard {key}: {error}")
        silent = None
        if isinstance(error, Unanswered):
            silent = f"{deferred(pipeline).quota_group}: results are asked for and no answer comes ({error})"
            again = f"asked again in {pipeline.poll_seconds:g} s"
            logger.warning(
                "shard %s: its results cannot be had from the service now (%s); %s", key, error, again
            )
        ledger.postpone(claim, ledger.now() + pipeline.poll_seconds, str(error))
        return ShardResult(key, Result.NOT_READY, message=f"shard {key}: {error}", silent=silent)
    except AttemptsSpent as error:
        fail(pipeline, claim, str(error), Cause.SPENT)
        return ShardResult(key, Result.EXHAUSTED, message=str(error))
    except _StopRequested:
        ledger.release(claim, "the pipeline is to stop")
        ledger.move(pipeline.name, [key], {State.READY}, State.STOPPED, place=pipeline.place)
        return unclaimed_shard(ledger.shard(pipeline.name, key), key)
    except ClaimLost:
        # To whom? Perhaps to ourselves: a write whose answer was lost is found done when it is tried again.
        committed = _committed(pipeline, shard, fingerprint)
        if committed is not None:
            return ShardResult(key, Result.VERIFIED, committed)
        ledger.release(claim)
        return unclaimed_shard(ledger.shard(pipeline.name, key), key)
    if isinstance(ended, Continued):
        return ShardResult(key, Result.CONTINUED, message=ended.describe(key), continued=ended)
    return ShardResult(key, Result.COLLECTED, ended)


def _commits(pipeline: Pipeline) -> bool:
    """Whether workers elsewhere commit the pipeline's shards."""
    return not pipeline.executor.in_place and deferred(pipeline).commits


def _committed(
    pipeline: Pipeline, shard: Shard, fingerprint: str, before: ShardRow | None = None
) -> ShardMarker | None:
    """The marker of a shard that is committed and needs no computing; the ledger is told if it was not.

    A commit of another fingerprint, one that was ordered to be computed again, one whose
    files are damaged, and one that is to be judged first do not count. `before` is the shard as
    the ledger had it before this look.
    """
    try:
        found = read_marker(pipeline.storage, shard.key)
        if found is None or found[0].fingerprint != fingerprint:
            if before is not None and before.state is State.COLLECTED:
                # Its marker was deleted, or written over by another deployment.
                why = "its commit marker is gone, or of another fingerprint"
                pipeline.ledger.recompute(pipeline.name, [shard.key], why=why, place=pipeline.place)
            return None
        if (_commits(pipeline) and doubted_commit(pipeline, shard.key)) or not adopt_marker(
            pipeline, shard.key
        ):
            return None
        crash_point("marker-adopted")
        account_shard(pipeline.storage, shard.records, found[0])
    except (AccountingError, FileNotFoundError) as error:
        logger.warning("shard %s: what is committed is damaged (%s); it is embedded again", shard.key, error)
        why = f"what is committed is damaged: {error}"
        pipeline.ledger.recompute(pipeline.name, [shard.key], why=why, place=pipeline.place)
        return None
    return found[0]


def _run(pipeline: Pipeline, claimed: ClaimedShard, together: Together) -> ShardMarker:
    """Have a shard runner embed the shard now, and commit what comes of it."""
    executor, job = runner(pipeline), f"{claimed.shard.key}-{claimed.claim.fence}"
    with together.running(executor, job), paying(pipeline, claimed, job):
        run = executor.run(attempt_at(pipeline, claimed, job), pipeline.storage)
        return bring_to_commit(pipeline, claimed, run, _watching(pipeline, claimed.shard))


def _watching(pipeline: Pipeline, shard: Shard) -> Callable[[Processed], None]:
    """Says now and then how far the shard is.

    Raises _StopRequested where the pipeline is to stop, KeyboardInterrupt where this process is.
    """
    started = said = time.perf_counter()
    records = 0

    def heed(done: Processed) -> None:
        nonlocal said, records
        if is_ended():
            raise KeyboardInterrupt
        records += done.records
        if time.perf_counter() - said >= SPEAK_SECONDS:
            said = time.perf_counter()
            rate = records / (said - started)
            logger.info("shard %s: %d of %d records, %.0f/s", shard.key, records, shard.records, rate)
        if pipeline.ledger.stop_requested(pipeline.name):
            raise _StopRequested

    return heed
