"""One shard, from its records to its commit: the same in the run's own process, on a node of Ray, in a container.

No ledger is asked here. Whoever has one asks it when all is written: the run goes on to its commit when it is told to.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.marker import standing_marker
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.encoders.base import Encoder
from batch_assets.paths import shard_generation
from batch_assets.plain_text import plain_logger
from batch_assets.settings.executors import WorkerSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan_files import read_summary
from batch_assets.sharding.reading import read_shard
from batch_assets.sources.base import Records
from batch_assets.storage import Storage
from batch_assets.worker import pipeline
from batch_assets.worker.attempt import Attempt, ShardRun, Written
from batch_assets.worker.commit import commit_shard, demand_root, is_done, priced, replacing, write_shard
from batch_assets.worker.fetching import Fetching

Compute = Callable[[Iterator[Records], JobFacts], Generator[Outcomes, None, None]]
"""Makes outcomes of a shard's records, in order, and notes in the facts what it learns."""

logger = plain_logger(__name__)


def run_shard(
    attempt: Attempt, storage: Storage, compute: Compute, facts: JobFacts | None = None
) -> ShardRun:
    """Read the shard's records, have their outcomes computed, write the files under `storage`, and commit them.

    `storage` is the output root. `facts` are what is known of the job already.
    Raises ConfigurationError where the output root is another one by now, ClaimLost, SourceError, StorageError,
    AccountingError, and what `compute` raises; nothing is committed then.
    """
    started = time.perf_counter()
    settings, key = attempt.settings, attempt.shard.key
    demand_root(storage, attempt)
    found, seen = standing_marker(storage, key)
    if found is not None and is_done(storage, found, attempt):
        logger.info("shard %s is committed already, under fence %d", key, found.fence)
        return found
    plan = attempt.plan or read_summary(storage, shard_generation(key))
    facts = facts if facts is not None else JobFacts(settings.model.id)
    records = read_shard(settings, attempt.shard, plan, storage)
    # Closed here, not when the garbage is collected: whatever computes is free again when the run has ended.
    with contextlib.closing(compute(records, facts)) as outcomes:
        marker = yield from write_shard(storage, attempt, plan.columns, outcomes, facts)
    marker = replacing(priced(marker, attempt, time.perf_counter() - started), found)
    yield Written()
    return commit_shard(storage, attempt, marker, seen)


def embedding(
    settings: PipelineSettings,
    encoder: Callable[[], Encoder],
    *,
    batch_tokens: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Compute:
    """Compute by a model in memory, which `encoder` loads where that has not been done.

    `batch_tokens` takes the place of the executor's `auto`. `progress` is called with (records, tokens) after each
    batch.
    """
    told = settings.executor
    assert isinstance(told, WorkerSettings), told.type

    def compute(records: Iterator[Records], facts: JobFacts) -> Generator[Outcomes, None, None]:
        started = time.perf_counter()
        model = encoder()
        facts.dtype, facts.device, facts.dimensions = model.dtype, model.device, model.dimensions
        facts.timings["load_seconds"] = time.perf_counter() - started
        yield from pipeline.embed(
            records,
            model,
            batch_tokens=batch_tokens if told.batch_tokens == "auto" else int(told.batch_tokens),
            batch_records=told.batch_records,
            fetching=Fetching.of(settings),
            timings=facts.timings,
            progress=progress,
        )

    return compute
