"""A shard's outcomes written as its data files, and the marker that will commit them.

Whether the marker may be put, and over which one, is for whoever has the shard to say: a run by its
claim (`control/committing.py`), a worker elsewhere by what it was sent (`assignment.py`).
"""

import datetime
import time
from collections.abc import Iterable
from dataclasses import dataclass

from batch_assets.embeddings.accounting import account_shard
from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.marker import ShardMarker
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.schema import Task
from batch_assets.embeddings.shard_writer import ShardFiles, ShardWriter
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets.storage import Storage


@dataclass(frozen=True)
class Authority:
    """Under which right a shard is written, and what its marker says of that. `run`: see `paths.embeddings`."""

    fence: int
    attempt: int
    fingerprint: str
    executor: str
    job: str
    task: Task
    earlier_usd: float = 0.0
    run: int = 0


def write_shard(
    storage: Storage,
    settings: PipelineSettings,
    columns: dict[str, str],
    shard: Shard,
    outcomes: Iterable[Outcomes],
    facts: JobFacts,
    authority: Authority,
) -> ShardMarker:
    """Write the outcomes of every record of the shard, in source order, and account for them; nothing is committed.

    `columns` are the plan's; `facts` may be filled while the outcomes are made. Raises
    AccountingError where the files do not hold what was planned.
    """
    started = time.perf_counter()
    writer = ShardWriter(
        storage,
        shard.key,
        authority.fence,
        columns,
        settings.output.dtype,
        normalized=settings.model.normalize,
        task=authority.task,
        run=authority.run,
    )
    try:
        for some in outcomes:
            writer.write(some)
        files = writer.close(facts.dimensions)
    except BaseException:
        writer.abort()
        raise
    facts.timings.setdefault("seconds", time.perf_counter() - started)
    marker = _marker(settings, shard, facts, files, authority)
    account_shard(storage, shard.records, marker)
    return marker


def _marker(
    settings: PipelineSettings, shard: Shard, facts: JobFacts, files: ShardFiles, authority: Authority
) -> ShardMarker:
    return ShardMarker(
        shard=shard.key,
        pipeline=settings.name,
        fingerprint=authority.fingerprint,
        model=facts.model,
        executor=authority.executor,
        job=authority.job,
        attempt=authority.attempt,
        fence=authority.fence,
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
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        norms=files.norms,
        token_histogram=files.token_histogram,
        cost_usd=facts.cost_usd,
        earlier_usd=authority.earlier_usd,
        timings={name: round(seconds, 3) for name, seconds in facts.timings.items()},
        task=files.task,
        output_tokens=files.output_tokens,
        run=authority.run,
    )
