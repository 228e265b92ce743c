"""Writing a claimed shard's outcomes and committing them: the one way to a commit marker.

The order is what makes a crash harmless: data files under a name of this claim's own, then the
ledger's COLLECTING, then the marker by a conditional write, then the ledger's COLLECTED. Whoever
comes after a crash looks for the marker first.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from batch_assets import paths
from batch_assets.control.pipeline import Pipeline, adopt_marker, now
from batch_assets.embeddings.accounting import account_shard
from batch_assets.embeddings.marker import ShardMarker, commit_marker, read_marker
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.shard_writer import ShardFiles, ShardWriter
from batch_assets.errors import AccountingError, ClaimLost
from batch_assets.executors.base import JobFacts
from batch_assets.ledger.rows import Claim
from batch_assets.sharding.plan import Shard


@dataclass(frozen=True)
class ClaimedShard:
    """A shard with the right to commit it, and what it is embedded by."""

    shard: Shard
    claim: Claim
    fingerprint: str


def commit_shard(
    pipeline: Pipeline, claimed: ClaimedShard, outcomes: Iterable[Outcomes], facts: JobFacts, job: str
) -> ShardMarker:
    """Write the outcomes of every record of the shard, in source order, and put the marker.

    `facts` may be filled while the outcomes are made. Raises ClaimLost where somebody else has
    the shard by now, AccountingError where the files do not hold what was planned.
    """
    shard, claim, started = claimed.shard, claimed.claim, time.perf_counter()
    previous, earlier_usd = _previous(pipeline, shard.key)
    settings = pipeline.settings
    writer = ShardWriter(
        pipeline.storage,
        shard.key,
        claim.fence,
        pipeline.summary_of(shard.key).columns,
        settings.output.dtype,
        normalized=settings.model.normalize,
        task=pipeline.executor.task,
    )
    try:
        for some in outcomes:
            writer.write(some)
        files = writer.close(facts.dimensions)
    except BaseException:
        writer.abort()
        raise
    facts.timings.setdefault("seconds", time.perf_counter() - started)
    marker = _marker(pipeline, claimed, facts, files, job, earlier_usd)
    account_shard(pipeline.storage, shard.records, marker)
    if not pipeline.ledger.begin_commit(claim):
        raise ClaimLost(f"shard {shard.key}: claimed by somebody else meanwhile")
    if not commit_marker(pipeline.storage, marker, previous):
        adopt_marker(pipeline, shard.key)
        raise ClaimLost(f"shard {shard.key}: committed by somebody else meanwhile")
    pipeline.ledger.finish(
        claim,
        fingerprint=claimed.fingerprint,
        embedded=marker.counts["embedded"],
        rejected=marker.counts["rejected"],
        failed=marker.counts["failed"],
        tokens=marker.tokens,
    )
    return marker


def _previous(pipeline: Pipeline, key: str) -> tuple[str | None, float]:
    """The version of the marker that this commit will replace, readable or not, and what was paid for it in USD."""
    try:
        found = read_marker(pipeline.storage, key)
    except AccountingError:
        damaged = pipeline.storage.read_versioned(paths.shard_marker(key))
        return (None if damaged is None else damaged[1]), 0.0
    return (None, 0.0) if found is None else (found[1], found[0].spent_usd)


def _marker(
    pipeline: Pipeline,
    claimed: ClaimedShard,
    facts: JobFacts,
    files: ShardFiles,
    job: str,
    earlier_usd: float,
) -> ShardMarker:
    shard, claim = claimed.shard, claimed.claim
    return ShardMarker(
        shard=shard.key,
        pipeline=pipeline.name,
        fingerprint=claimed.fingerprint,
        model=facts.model,
        executor=pipeline.executor.kind,
        job=job,
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
        earlier_usd=earlier_usd,
        timings={name: round(seconds, 3) for name, seconds in facts.timings.items()},
        task=files.task,
        output_tokens=files.output_tokens,
    )
