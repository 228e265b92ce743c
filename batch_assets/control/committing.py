"""Bringing a claimed shard's run to its commit: the ledger is asked before the marker, and told behind it.

The order is what makes a crash harmless: data files under a name of this claim's own, then the
ledger's COLLECTING, then the marker by a conditional write, then the ledger's COLLECTED. Whoever
comes after a crash looks for the marker first. What a run does is in `worker/run_shard.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from batch_assets.control.pipeline import Pipeline, adopt_marker
from batch_assets.crash_points import crash_point
from batch_assets.embeddings.marker import ShardMarker
from batch_assets.errors import ClaimLost
from batch_assets.ledger.rows import Claim
from batch_assets.sharding.plan import Shard
from batch_assets.worker.attempt import Attempt, Processed, ShardRun, Step, follow


@dataclass(frozen=True)
class ClaimedShard:
    """A shard with the right to commit it, and what it is embedded by. See `Attempt`."""

    shard: Shard
    claim: Claim
    fingerprint: str
    outdated_fence: int = -1


def attempt_at(pipeline: Pipeline, claimed: ClaimedShard, job: str) -> Attempt:
    """What is to be done under the claim, as `job`."""
    return Attempt(
        settings=pipeline.settings,
        shard=claimed.shard,
        fence=claimed.claim.fence,
        number=claimed.claim.attempt,
        fingerprint=claimed.fingerprint,
        executor=pipeline.executor.kind,
        job=job,
        task=pipeline.executor.task,
        outdated_fence=claimed.outdated_fence,
        deployment=pipeline.place.deployment if pipeline.place is not None else None,
        plan=pipeline.summary_of(claimed.shard.key),
    )


def bring_to_commit(
    pipeline: Pipeline,
    claimed: ClaimedShard,
    run: ShardRun,
    heed: Callable[[Processed], None] = lambda done: None,
) -> ShardMarker:
    """Follow the run to its end; the marker that it has put. `heed` is told of its progress, and may raise.

    Raises ClaimLost where somebody else has the shard by now, and what the run raises.
    """
    claim = claimed.claim

    def attend(step: Step) -> None:
        if isinstance(step, Processed):
            heed(step)
            return
        if not pipeline.ledger.begin_commit(claim):
            raise ClaimLost(f"shard {claim.shard}: claimed by somebody else meanwhile")
        crash_point("commit-begun")

    marker = follow(run, attend)
    if marker.fence != claim.fence:
        adopt_marker(pipeline, claim.shard)
        raise ClaimLost(f"shard {claim.shard}: committed by somebody else meanwhile")
    crash_point("marker-committed")
    pipeline.ledger.finish(
        claim,
        fingerprint=marker.fingerprint,
        embedded=marker.counts["embedded"],
        rejected=marker.counts["rejected"],
        failed=marker.counts["failed"],
        tokens=marker.tokens,
    )
    crash_point("shard-collected")
    return marker
