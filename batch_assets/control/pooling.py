"""Remainders that wait to share a job, and never can: called one by one in the end."""

from batch_assets.control.pipeline import Pipeline
from batch_assets.ledger.states import State

ENDED = frozenset({State.COLLECTED, State.EXHAUSTED, State.STOPPED})


def release_pool(pipeline: Pipeline) -> list[str]:
    """Give up waiting where nothing else is to come that could fill the pool; the shards released.

    Only small jobs wait in the queue then, together fewer records than a job must have: the
    model is called for each record instead.
    """
    ledger, name = pipeline.ledger, pipeline.name
    least = pipeline.executor.limits.min_records
    counts = ledger.counts(name)
    if any(count for state, count in counts.items() if state not in ENDED and state is not State.QUEUED):
        return []
    rows = ledger.shards(name, states=[State.QUEUED], limit=least + 1)
    jobs = [job for row in rows if row.job is not None and (job := ledger.job(name, row.key, row.job))]
    if len(jobs) != len(rows) or sum(job.records for job in jobs) >= least:
        return []
    return ledger.call_one_by_one(name, [job.shard for job in jobs])
