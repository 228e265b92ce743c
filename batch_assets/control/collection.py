"""Collecting shards: claim, compute or fetch, write, commit — each shard once.

The order of the commit is what makes a crash harmless: data files under a name of this
claim's own, then the ledger's COLLECTING, then the marker by a conditional write, then the
ledger's COLLECTED. Whoever comes after a crash looks for the marker first.
"""

import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from batch_assets import paths
from batch_assets.control.leases import exclusive
from batch_assets.control.pipeline import Pipeline, adopt_marker, now
from batch_assets.control.retrying import recompute_shards
from batch_assets.embeddings.accounting import account_shard
from batch_assets.embeddings.marker import ShardMarker, commit_marker, read_marker
from batch_assets.embeddings.shard_writer import ShardFiles, ShardWriter
from batch_assets.errors import (
    AccountingError,
    ClaimLost,
    ConfigurationError,
    ModelError,
    SourceError,
    StorageError,
)
from batch_assets.executors.base import JobFacts
from batch_assets.ledger.rows import Claim, ShardRow
from batch_assets.ledger.states import State
from batch_assets.sharding.plan import Shard

SPEAK_SECONDS = 30.0
logger = logging.getLogger(__name__)


class Result(StrEnum):
    """How asking for one shard ended."""

    COLLECTED = "collected"  # computed by this call
    VERIFIED = "verified"  # was committed before; its files are there
    HELD = "held"  # somebody else is at it
    NOT_READY = "not_ready"
    RETRYING = "retrying"  # failed as a whole, attempts are left
    EXHAUSTED = "exhausted"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ShardResult:
    """What became of one shard; `marker` is there for COLLECTED and VERIFIED, `message` otherwise."""

    key: str
    result: Result
    marker: ShardMarker | None = None
    message: str = ""


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
    """Bring every shard of `keys` as far as it goes now; yields each as it ends, in order.

    `recompute` embeds again what is committed, unless a run of `done_by` did so. An error that
    no other shard would escape (the model, the configuration, a store) is raised, with the claim
    given back.
    """
    fingerprint = pipeline.fingerprint
    if recompute:
        recompute_shards(pipeline.ledger, pipeline.name, keys, done_by)
    planned = pipeline.plan_shards(keys)
    with _device(pipeline, keys):
        for key in keys:
            if key in planned:
                yield _collect_shard(pipeline, planned[key], fingerprint, run_id)
            else:
                text = f"shard {key} is in no plan of pipeline {pipeline.name}; materialize shard_plan first"
                yield ShardResult(key, Result.NOT_READY, message=text)


def _device(pipeline: Pipeline, keys: Sequence[str]) -> contextlib.AbstractContextManager[None]:
    """The lease of the device that only one process may compute on; nothing where nothing is to be computed."""
    rows = pipeline.ledger.shards(pipeline.name, keys=keys)
    if all(row.state is State.COLLECTED for row in rows):
        return contextlib.nullcontext()
    device = pipeline.executor.exclusive_device()
    if device is None:
        return contextlib.nullcontext()
    return exclusive(pipeline.ledger, f"{device} of {pipeline.holder.host}", pipeline.holder)


def _collect_shard(pipeline: Pipeline, shard: Shard, fingerprint: str, run_id: str | None) -> ShardResult:
    ledger, key = pipeline.ledger, shard.key
    committed = _committed(pipeline, shard, fingerprint)
    if committed is not None:
        return ShardResult(key, Result.VERIFIED, committed)
    if ledger.stop_requested(pipeline.name):
        text = f"shard {key}: pipeline {pipeline.name} was stopped; `batch-assets run` goes on"
        return ShardResult(key, Result.STOPPED, message=text)
    claim = ledger.claim(pipeline.name, key, pipeline.holder, run_id)
    if claim is None:
        return _unclaimed(ledger.shard(pipeline.name, key), key)
    try:
        # Looked for again under the claim: its last holder may have committed in between.
        committed = _committed(pipeline, shard, fingerprint)
        if committed is not None:
            return ShardResult(key, Result.VERIFIED, committed)
        marker = _compute(pipeline, shard, claim, fingerprint)
    except _StopRequested:
        ledger.release(claim)
        ledger.move(pipeline.name, [key], {State.READY}, State.STOPPED)
        return _unclaimed(ledger.shard(pipeline.name, key), key)
    except ClaimLost:
        # To whom? Perhaps to ourselves: a write whose answer was lost is found done when it is tried again.
        committed = _committed(pipeline, shard, fingerprint)
        if committed is not None:
            return ShardResult(key, Result.VERIFIED, committed)
        ledger.release(claim)
        return _unclaimed(ledger.shard(pipeline.name, key), key)
    except (ModelError, ConfigurationError, StorageError):
        ledger.release(claim)
        raise
    except SourceError as error:
        # Reading the same files again cannot help: a person must mend the source, then `retry`.
        ledger.fail(claim, str(error), max_attempts=0)
        return ShardResult(key, Result.EXHAUSTED, message=f"shard {key}: {error}")
    except Exception as error:
        logger.exception("shard %s failed", key)
        text = f"shard {key}: {type(error).__name__}: {error}"
        state = ledger.fail(claim, text, max_attempts=pipeline.settings.executor.max_attempts)
        result = Result.EXHAUSTED if state is State.EXHAUSTED else Result.RETRYING
        return ShardResult(key, result, message=text)
    except BaseException:  # Ctrl-C, termination, a closed generator: somebody may go on at once
        ledger.release(claim)
        raise
    return ShardResult(key, Result.COLLECTED, marker)


def _committed(pipeline: Pipeline, shard: Shard, fingerprint: str) -> ShardMarker | None:
    """The marker of a shard that is committed and needs no computing; the ledger is told if it was not.

    A commit of another fingerprint, one that was ordered to be computed again, and one whose
    files are damaged do not count.
    """
    try:
        found = read_marker(pipeline.storage, shard.key)
        if found is None or found[0].fingerprint != fingerprint:
            return None
        if not adopt_marker(pipeline, shard.key):
            return None
        account_shard(pipeline.storage, shard.records, found[0])
    except (AccountingError, FileNotFoundError) as error:
        logger.warning("shard %s: what is committed is damaged (%s); it is embedded again", shard.key, error)
        pipeline.ledger.recompute(pipeline.name, [shard.key])
        return None
    return found[0]


def _unclaimed(row: ShardRow | None, key: str) -> ShardResult:
    if row is None:
        return ShardResult(key, Result.NOT_READY, message=f"shard {key} is not planned")
    if row.superseded:
        text = f"shard {key} was replaced by a later plan; its rows are no longer merged"
        return ShardResult(key, Result.NOT_READY, message=text)
    if row.state is State.EXHAUSTED:
        text = f"shard {key} is given up after {row.attempt} attempts: {row.error}; mend it, then `batch-assets retry`"
        return ShardResult(key, Result.EXHAUSTED, message=text)
    if row.state in (State.RUNNING, State.COLLECTING):
        return ShardResult(key, Result.HELD, message=f"shard {key} is being embedded by {row.holder}")
    if row.state is State.STOPPED:
        text = f"shard {key} was stopped; `batch-assets retry` or `run` takes it up again"
        return ShardResult(key, Result.STOPPED, message=text)
    text = f"shard {key} is {row.state.value}, not ready: materialize input_shards and submitted_jobs first"
    return ShardResult(key, Result.NOT_READY, message=text)


def _compute(pipeline: Pipeline, shard: Shard, claim: Claim, fingerprint: str) -> ShardMarker:
    started = time.perf_counter()
    previous = _marker_version(pipeline, shard.key)
    facts = JobFacts()
    summary = pipeline.summary_of(shard.key)
    prepared = pipeline.executor.prepare(shard, claim.attempt)
    handle = pipeline.executor.submit([prepared], token=f"{shard.key}-{claim.fence}")[0]
    settings = pipeline.settings
    writer = ShardWriter(
        pipeline.storage,
        shard.key,
        claim.fence,
        summary.columns,
        settings.output.dtype,
        normalized=settings.model.normalize,
    )
    try:
        records, said = 0, started
        for outcomes in pipeline.executor.collect(handle, facts):
            writer.write(outcomes)
            records += len(outcomes.records) + len(outcomes.records.rejections)
            if time.perf_counter() - said >= SPEAK_SECONDS:
                said = time.perf_counter()
                rate = records / (said - started)
                logger.info("shard %s: %d of %d records, %.0f/s", shard.key, records, shard.records, rate)
            if pipeline.ledger.stop_requested(pipeline.name):
                raise _StopRequested
        files = writer.close(facts.dimensions)
    except BaseException:
        writer.abort()
        raise
    facts.timings["seconds"] = time.perf_counter() - started
    marker = _marker(pipeline, shard, claim, fingerprint, facts, files)
    account_shard(pipeline.storage, shard.records, marker)
    if not pipeline.ledger.begin_commit(claim):
        raise ClaimLost(f"shard {shard.key}: claimed by somebody else meanwhile")
    if not commit_marker(pipeline.storage, marker, previous):
        adopt_marker(pipeline, shard.key)
        raise ClaimLost(f"shard {shard.key}: committed by somebody else meanwhile")
    pipeline.ledger.finish(
        claim,
        fingerprint=fingerprint,
        embedded=marker.counts["embedded"],
        rejected=marker.counts["rejected"],
        failed=marker.counts["failed"],
        tokens=marker.tokens,
    )
    return marker


def _marker_version(pipeline: Pipeline, key: str) -> str | None:
    """The version of the marker that this commit will replace, readable or not."""
    found = pipeline.storage.read_versioned(paths.shard_marker(key))
    return None if found is None else found[1]


def _marker(
    pipeline: Pipeline, shard: Shard, claim: Claim, fingerprint: str, facts: JobFacts, files: ShardFiles
) -> ShardMarker:
    return ShardMarker(
        shard=shard.key,
        pipeline=pipeline.name,
        fingerprint=fingerprint,
        model=facts.model,
        executor=pipeline.executor.kind,
        job=f"{shard.key}-{claim.fence}",
        attempt=claim.attempt,
        fence=claim.fence,
        dtype=facts.dtype,
        device=facts.device,
        dimensions=files.dimensions,
        vector_dtype=files.vector_dtype,
        normalized=files.normalized,
        columns=files.columns,
        files=files.files,
        counts={
            "planned": shard.records,
            "embedded": files.embedded,
            "rejected": files.rejected,
            "failed": files.failed,
        },
        tokens=files.tokens,
        created=now(),
        norms=files.norms,
        token_histogram=files.token_histogram,
        cost_usd=facts.cost_usd,
        timings={name: round(seconds, 3) for name, seconds in facts.timings.items()},
    )
