"""The commit of a shard: its outcomes written as data files, and the marker that makes them count.

No ledger is asked here. Whoever has one asks it between the two (`control/`); elsewhere the marker's condition alone
decides: it is put only over the one that was seen before, so that of two who embed a shard one commits.
"""

import datetime
import time
from collections.abc import Generator, Iterable
from dataclasses import replace

from batch_assets import paths
from batch_assets.embeddings.accounting import account_shard
from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.marker import ShardMarker, commit_marker, standing_marker
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.parquet_files import GROUP_ROWS, LOOKED_UP_GROUP_ROWS
from batch_assets.embeddings.shard_writer import ShardFiles, ShardWriter
from batch_assets.errors import AccountingError, ClaimLost, ConfigurationError
from batch_assets.plain_text import plain_logger
from batch_assets.storage import Storage
from batch_assets.storage.owner import parse_owner
from batch_assets.worker.attempt import Attempt, Processed

logger = plain_logger(__name__)


def write_shard(
    storage: Storage,
    attempt: Attempt,
    columns: dict[str, str],
    outcomes: Iterable[Outcomes],
    facts: JobFacts,
) -> Generator[Processed, None, ShardMarker]:
    """Write the outcomes of every record of the shard, in source order, and account for them; nothing is committed.

    Returns the marker that will commit them. `columns` are the plan's; `facts` may be filled while the outcomes are
    made. Closing the generator removes what was written. Raises AccountingError where the files do not hold what
    was planned.
    """
    started = time.perf_counter()
    settings = attempt.settings
    writer = ShardWriter(
        storage,
        attempt.shard.key,
        attempt.fence,
        columns,
        settings.output.dtype,
        normalized=settings.model.normalize,
        task=attempt.task,
        run=attempt.run,
        group_rows=GROUP_ROWS if settings.source.requests is None else LOOKED_UP_GROUP_ROWS,
    )
    try:
        for some in outcomes:
            if some.records or some.records.rejections:
                writer.write(some)
            yield Processed(
                len(some.records) + len(some.records.rejections), int(some.token_counts.sum(dtype=int))
            )
        files = writer.close(facts.dimensions)
    except BaseException:
        writer.abort()
        raise
    facts.timings.setdefault("seconds", time.perf_counter() - started)
    marker = _marker(attempt, facts, files)
    account_shard(storage, attempt.shard.records, marker)
    return marker


def commit_shard(storage: Storage, attempt: Attempt, own: ShardMarker, seen: str | None) -> ShardMarker:
    """Put the marker over the version that was seen; the one that stands in the end, this attempt's or another's.

    Raises ClaimLost where another's was put that does not count, and ConfigurationError where the output root is
    another one by now. The files that were written for nothing stay: whether their names are one's own, only whoever
    has given them knows (`container.py`); the others go with the clean-up.
    """
    demand_root(storage, attempt)
    if commit_marker(storage, own, seen):
        return own
    found, _ = standing_marker(storage, attempt.shard.key)
    if found is not None and found.files == own.files:
        return found  # the own write, whose answer was lost
    if found is None or not is_done(storage, found, attempt):
        raise ClaimLost(
            f"shard {attempt.shard.key}: its marker changed while it was embedded; it is tried again"
        )
    logger.info("shard %s was committed by %s meanwhile", attempt.shard.key, found.job)
    return found


def is_done(storage: Storage, marker: ShardMarker, attempt: Attempt) -> bool:
    """Whether the shard needs no computing: committed under this fingerprint and not ordered anew since, or later."""
    if marker.fence > attempt.fence:
        return True  # whoever has the later claim knows better what is asked for
    if marker.fingerprint != attempt.fingerprint or marker.fence <= attempt.outdated_fence:
        return False
    try:
        account_shard(storage, marker.counts["planned"], marker)
    except (AccountingError, FileNotFoundError) as error:
        logger.warning("shard %s: what is committed is damaged (%s); embedded again", marker.shard, error)
        return False
    return True


def demand_root(storage: Storage, attempt: Attempt) -> None:
    """Refuse a root that was removed meanwhile, and perhaps made anew: its shards are others."""
    if not is_same_root(storage, attempt.deployment):
        raise root_removed(storage, attempt.shard.key)


def is_same_root(storage: Storage, deployment: str | None) -> bool:
    """Whether the output root is the one with this random id; one without an id is taken for the same."""
    if deployment is None:
        return True
    found = storage.read_versioned(paths.PIPELINE)
    owner = parse_owner(found[0]) if found is not None else None
    return owner is not None and owner.get("deployment") == deployment


def root_removed(storage: Storage, shard: str) -> ConfigurationError:
    return ConfigurationError(
        f"shard {shard} is not committed: the output root {storage.uri} was removed since this job "
        "was begun; run the pipeline again"
    )


def priced(marker: ShardMarker, attempt: Attempt, seconds: float) -> ShardMarker:
    """The marker with what the machine has cost, where its price is known."""
    if attempt.usd_per_hour is None:
        return marker
    return replace(marker, cost_usd=seconds / 3600 * attempt.usd_per_hour)


def replacing(marker: ShardMarker, before: ShardMarker | None) -> ShardMarker:
    """The marker with what the commit before it, which it is to replace, has cost."""
    return marker if before is None else replace(marker, earlier_usd=before.spent_usd)


def _marker(attempt: Attempt, facts: JobFacts, files: ShardFiles) -> ShardMarker:
    return ShardMarker(
        shard=attempt.shard.key,
        pipeline=attempt.settings.name,
        fingerprint=attempt.fingerprint,
        model=facts.model,
        executor=attempt.executor,
        job=attempt.job,
        attempt=attempt.number,
        fence=attempt.fence,
        dtype=facts.dtype,
        device=facts.device,
        dimensions=files.dimensions,
        vector_dtype=files.vector_dtype,
        normalized=files.normalized,
        columns=files.columns,
        files=files.files,
        counts={
            "planned": attempt.shard.records,
            "embedded": files.embedded,
            "rejected": files.rejected,
            "failed": files.failed,
        },
        tokens=files.tokens,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        norms=files.norms,
        token_histogram=files.token_histogram,
        cost_usd=facts.cost_usd,
        timings={name: round(seconds, 3) for name, seconds in facts.timings.items()},
        task=files.task,
        output_tokens=files.output_tokens,
        run=attempt.run,
    )
