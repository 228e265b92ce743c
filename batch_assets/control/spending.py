"""Dollars of a shard runner's runs: reserved before the first call, settled when the run has ended, well or not.

Money of a service's jobs is reserved as they are submitted, and settled as they are collected.
"""

import contextlib
from collections.abc import Iterator

from batch_assets.control.committing import ClaimedShard
from batch_assets.control.leases import giving_back
from batch_assets.control.pipeline import Pipeline
from batch_assets.errors import BudgetReached, NotReady
from batch_assets.executors.base import PaidRunner
from batch_assets.sharding.manifest import read_input_manifest


@contextlib.contextmanager
def paying(pipeline: Pipeline, claimed: ClaimedShard, job: str) -> Iterator[None]:
    """Reserve what the run in the block costs at most, and count what it has cost. Raises BudgetReached."""
    executor, ledger, claim = pipeline.executor, pipeline.ledger, claimed.claim
    if not isinstance(executor, PaidRunner):
        yield
        return
    manifest = read_input_manifest(pipeline.storage, claim.shard)
    if manifest is None:
        raise NotReady(f"shard {claim.shard} has no input manifest; materialize input_shards first")
    bound = executor.bound_usd(claimed.shard, manifest)
    if reached := ledger.reserve_run(claim, manifest.valid, bound, pipeline.budget):
        raise BudgetReached(reached)
    try:
        yield
    except BaseException as error:
        with giving_back(error):
            ledger.settle(pipeline.name, claim.shard, claim.fence, executor.spent_usd(job))
        raise
    ledger.settle(pipeline.name, claim.shard, claim.fence, executor.spent_usd(job))
