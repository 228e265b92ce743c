"""From committed shards to the published dataset: who may merge, when, and what blocks it.

How parts are written is in `merge/`, what `merge_when` means in `merge_time.py`; what is computed
here is only whether it may go on.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from batch_assets.control.merge_time import refusal
from batch_assets.control.pipeline import Pipeline
from batch_assets.crash_points import crash_point
from batch_assets.embeddings.failure_reasons import most_common_reason
from batch_assets.embeddings.marker import read_marker
from batch_assets.errors import AccountingError, AllRejected, NotReady
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import State
from batch_assets.merge.base import CheckOutcome, LeftOut, Manifest, MergeResult
from batch_assets.merge.checks import check_accounting, check_vectors
from batch_assets.merge.parquet import Grouping, merge
from batch_assets.merge.publishing import current, open_current, publish
from batch_assets.merge.single_file import write_single_file
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import MERGE_TRIES
from batch_assets.settings.pipeline import FOLDER
from batch_assets.settings.source import UNIQUE, Ids, SourceSettings
from batch_assets.sources.shards import RECORD_ID

NAMED_IN_ERRORS = 5
SHARDS_LOOKED_AT = 20
logger = plain_logger(__name__)


@dataclass(frozen=True)
class CheckedMerge:
    """A merged version, finished and checked, not yet published; `revision` is the ledger's before it."""

    result: MergeResult
    accounting: CheckOutcome
    vectors: CheckOutcome
    revision: int

    @property
    def manifest(self) -> Manifest:
        return self.result.manifest

    @property
    def passed(self) -> bool:
        return self.accounting.passed and self.vectors.passed


def merge_shards(pipeline: Pipeline) -> CheckedMerge:
    """Merge what is committed under the current fingerprint, check it, and name what is left out.

    Raises NotReady where shards are missing and `merge_when` does not allow for that, and
    AccountingError where too many records failed or none was embedded, or ids are not unique as they should be.
    """
    merged = _merge_undisturbed(pipeline)
    _name_left_out(pipeline, merged.manifest)
    for told in merged.manifest.ids.describe() if merged.manifest.ids is not None else ():
        logger.warning("pipeline %s: %s", pipeline.name, told)
    return merged


def _merge_undisturbed(pipeline: Pipeline) -> CheckedMerge:
    for _ in range(MERGE_TRIES - 1):
        published = current(pipeline.storage)
        try:
            merged = _merge(pipeline)
        except (AccountingError, FileNotFoundError):
            if current(pipeline.storage) == published:
                raise
        else:
            if merged.passed or current(pipeline.storage) == published:
                return merged
        # A merge by another ledger ended first, and cleared away what it took for a crash's remains.
    return _merge(pipeline)


def _left_out(pipeline: Pipeline, merged: Collection[str]) -> list[ShardRow]:
    return [row for row in pipeline.ledger.shards(pipeline.name) if row.key not in merged]


def _grouping(pipeline: Pipeline, rows: Sequence[ShardRow]) -> Grouping | None:
    by = pipeline.settings.merge_by
    if by != FOLDER:
        return None if by is None else Grouping(by)
    folders = {
        key: {segment.path.rpartition("/")[0] for segment in shard.segments}
        for key, shard in pipeline.plan_shards([row.key for row in rows]).items()
    }
    if any(len(some) > 1 for some in folders.values()):
        return Grouping(by)  # planned when folders did not matter: their rows are sorted into groups
    return Grouping(by, {key: next(iter(some)) for key, some in folders.items()})


def _name_left_out(pipeline: Pipeline, manifest: Manifest) -> None:
    left_out = _left_out(pipeline, {shard.shard for shard in manifest.merged_shards})
    if left_out:
        named = ", ".join(f"{row.key} ({_why(row)})" for row in left_out[:NAMED_IN_ERRORS])
        logger.warning(
            "pipeline %s: %d shards with %d records are left out of the merge: %s%s",
            pipeline.name,
            len(left_out),
            sum(row.records for row in left_out),
            named,
            ", …" if len(left_out) > NAMED_IN_ERRORS else "",
        )


def _merge(pipeline: Pipeline) -> CheckedMerge:
    _ = pipeline.fingerprint  # stale shards are moved before the revision is taken
    attached = pipeline.ledger.pipeline(pipeline.name)
    revision = attached.revision if attached else 0
    rows = mergeable_shards(pipeline)
    _refuse_too_many_failures(pipeline, rows)
    pairs = [(row.key, row.records) for row in rows]
    left_out = _left_out(pipeline, {row.key for row in rows})
    result = merge(
        pipeline.storage,
        pairs,
        pipeline.fingerprint,
        grouping=_grouping(pipeline, rows),
        left_out=LeftOut(len(left_out), sum(row.records for row in left_out)),
        ids=_ids_to_count(pipeline.settings.source),
        metadata={"pipeline": pipeline.name},
    )
    accounting = check_accounting(pipeline.storage, result.manifest)
    vectors = check_vectors(pipeline.storage, result.manifest)
    return CheckedMerge(result, accounting, vectors, revision)


def _ids_to_count(source: SourceSettings) -> Ids | None:
    """How the records' ids are to be; None where each record is named by its place, or was counted upstream."""
    carried = source.pipeline is not None and source.id_column == RECORD_ID
    return None if source.id_column is None or (carried and source.ids != UNIQUE) else source.ids


def publish_merge(pipeline: Pipeline, merged: CheckedMerge) -> Manifest:
    """Swap the pointer; returns what is published now: `merged`, or the same content by another ledger.

    Raises NotReady where another merge has published something else meanwhile.
    """
    published = merged.manifest
    if not publish(pipeline.storage, published.version, merged.result.expected_current):
        found = open_current(pipeline.storage)
        if found is None or found.digest != published.digest:
            raise NotReady(
                f"{current(pipeline.storage)} was published while {published.version} was merged; "
                "merge again to publish what is newer"
            )
        published = found
    crash_point("version-published")
    # Before the ledger counts it as merged: a run that dies in between is not the last one.
    if pipeline.settings.output.single_file:
        write_single_file(pipeline.storage)
    pipeline.ledger.set_merged(pipeline.name, merged.revision)
    crash_point("merge-noted")
    return published


def mergeable_shards(pipeline: Pipeline) -> list[ShardRow]:
    """The committed shards of the current fingerprint, in order. Raises NotReady as `merge_shards` does."""
    fingerprint = pipeline.fingerprint
    rows = pipeline.ledger.shards(pipeline.name)
    done = [row for row in rows if row.state is State.COLLECTED and row.fingerprint == fingerprint]
    missing = [row for row in rows if row.state is not State.COLLECTED or row.fingerprint != fingerprint]
    if not rows:
        raise NotReady(f"pipeline {pipeline.name} has no shards; materialize shard_plan first")
    reason = refusal(pipeline.settings, pipeline.ledger, done, missing)
    if not done:
        reason = reason or "materialize embedding_outputs for them"
    if missing and reason:
        named = ", ".join(f"{row.key} ({_why(row)})" for row in missing[:NAMED_IN_ERRORS])
        more = f" and {len(missing) - NAMED_IN_ERRORS} more" if len(missing) > NAMED_IN_ERRORS else ""
        raise NotReady(
            f"{len(missing)} of {len(rows)} shards of {pipeline.name} are missing: {named}{more}; {reason}"
        )
    return done


def shard_rates(pipeline: Pipeline, manifest: Manifest, most: int = 40) -> list[tuple[str, float]]:
    """(shard, records per second when it was embedded) of at most `most` shards, evenly spread."""
    shards = manifest.merged_shards
    step = -(-len(shards) // most) or 1
    rates: list[tuple[str, float]] = []
    for one in shards[::step]:
        found = read_marker(pipeline.storage, one.shard)
        seconds = found[0].timings.get("seconds", 0.0) if found is not None else 0.0
        if seconds > 0:
            rates.append((one.shard, one.rows / seconds))
    return rates


def _why(row: ShardRow) -> str:
    return f"{row.state.value}: {row.error}" if row.error else row.state.value


def _refuse_too_many_failures(pipeline: Pipeline, rows: list[ShardRow]) -> None:
    planned = sum(row.records for row in rows)
    failed = sum(row.failed for row in rows)
    allowed = pipeline.settings.max_failed_fraction
    if failed / max(planned, 1) > allowed:
        raise AccountingError(
            f"{failed} of {planned} records failed ({failed / planned:.2%}), more than max_failed_fraction "
            f"{allowed:g} allows; nothing is published. See the shards' failures files, then "
            f"`batch-assets retry {pipeline.name}`, or raise max_failed_fraction"
        )
    if not any(row.embedded for row in rows):
        rejected = sum(row.rejected for row in rows)
        none = f"none of {planned} records was embedded ({rejected} rejected, {failed} failed: "
        none += f"{_reason(pipeline, rows)}); nothing is published. "
        if failed:
            raise AccountingError(
                f"{none}Mend that, then `batch-assets retry {pipeline.name}` tries them again"
            )
        raise AllRejected(
            f"{none}Rejected records are not tried again: mend the source, or the source's fields in the settings, "
            f"then `batch-assets plan {pipeline.name} --replace` plans it anew, or name another output root"
        )


def _reason(pipeline: Pipeline, rows: Sequence[ShardRow]) -> str:
    """Why most records of the shards are bad, by a few of them."""
    step = -(-len(rows) // SHARDS_LOOKED_AT) or 1
    markers = (read_marker(pipeline.storage, row.key) for row in rows[::step])
    files = [found[0].failures.path for found in markers if found is not None]
    return most_common_reason(pipeline.storage, files) or "the shards' failures files are gone"
