"""Writing a claimed shard's outcomes and committing them: the one way to a commit marker.

The order is what makes a crash harmless: data files under a name of this claim's own, then the
ledger's COLLECTING, then the marker by a conditional write, then the ledger's COLLECTED. Whoever
comes after a crash looks for the marker first.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from batch_assets.control.pipeline import Pipeline, adopt_marker
from batch_assets.crash_points import crash_point
from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.marker import ShardMarker, commit_marker, standing_marker
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.errors import ClaimLost
from batch_assets.ledger.rows import Claim
from batch_assets.sharding.plan import Shard
from batch_assets.worker.shard_files import Authority, write_shard


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
    shard, claim = claimed.shard, claimed.claim
    previous, version = standing_marker(pipeline.storage, shard.key)
    authority = Authority(
        fence=claim.fence,
        attempt=claim.attempt,
        fingerprint=claimed.fingerprint,
        executor=pipeline.executor.kind,
        job=job,
        task=pipeline.executor.task,
        earlier_usd=previous.spent_usd if previous is not None else 0.0,
    )
    columns = pipeline.summary_of(shard.key).columns
    marker = write_shard(pipeline.storage, pipeline.settings, columns, shard, outcomes, facts, authority)
    if not pipeline.ledger.begin_commit(claim):
        raise ClaimLost(f"shard {shard.key}: claimed by somebody else meanwhile")
    crash_point("commit-begun")
    if not commit_marker(pipeline.storage, marker, version):
        adopt_marker(pipeline, shard.key)
        raise ClaimLost(f"shard {shard.key}: committed by somebody else meanwhile")
    crash_point("marker-committed")
    pipeline.ledger.finish(
        claim,
        fingerprint=claimed.fingerprint,
        embedded=marker.counts["embedded"],
        rejected=marker.counts["rejected"],
        failed=marker.counts["failed"],
        tokens=marker.tokens,
    )
    crash_point("shard-collected")
    return marker
