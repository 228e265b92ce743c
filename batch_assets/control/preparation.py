"""Preparing shards: records checked, the input manifest written, the job put into the queue."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from batch_assets import paths
from batch_assets.control.chaining import is_chained, ready_shards, waiting_sentence
from batch_assets.control.pipeline import Pipeline
from batch_assets.control.retrying import recompute_shards
from batch_assets.control.uploading import refuse_blocked, upload_shards
from batch_assets.control.upstream_changes import begin_anew, note_commits
from batch_assets.crash_points import crash_point
from batch_assets.errors import SourceError
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import State
from batch_assets.retry_policy import MANIFEST_TRIES
from batch_assets.sharding.manifest import (
    InputManifest,
    prepare_input,
    replace_input_manifest,
    write_input_manifest,
)
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.upstream import commit_in, committed_anew


@dataclass(frozen=True)
class PreparedShard:
    """What checking one shard's records found. `error` says why it could not be read at all.

    `waits` says what it has to wait for: it is not prepared yet. `lengths` maps the lower end of
    each doubling of characters to a number of records.
    """

    key: str
    planned: int
    valid: int
    rejected: int
    bytes: int
    tokens: int | None
    uri: str
    lengths: dict[int, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    error: str = ""
    waits: str = ""


def prepare_shards(pipeline: Pipeline, keys: Sequence[str]) -> Iterator[PreparedShard]:
    """Check the records of each shard and write its manifest; repeatable, in the order of `keys`.

    A shard that cannot be read is prepared with its error: that it fails is found out, with
    all consequences, where it is collected, and the other shards go their way. One whose records
    another pipeline has not made yet stays planned.
    """
    planned = pipeline.plan_shards(keys)
    waiting = _waiting(pipeline, keys)
    for key in keys:
        if key not in planned:
            raise SourceError(
                f"shard {key} is in no plan of pipeline {pipeline.name}; materialize shard_plan first"
            )
        shard = planned[key]
        uri = f"{pipeline.storage.uri}/{paths.input_manifest(key)}"
        if key in waiting:
            text = waiting_sentence(pipeline.settings, [key])
            yield PreparedShard(key, shard.records, 0, 0, shard.bytes, None, uri, waits=text)
            continue
        try:
            if is_chained(pipeline.settings):
                manifest = _prepare_chained(pipeline, shard)
            else:
                manifest = prepare_input(
                    pipeline.settings, shard, pipeline.summary_of(key), root=pipeline.storage
                )
                write_input_manifest(pipeline.storage, manifest)
                crash_point("input-manifest-written")
        except SourceError as error:
            pipeline.ledger.move(
                pipeline.name,
                [key],
                {State.PLANNED},
                State.PREPARED,
                place=pipeline.place,
                error=str(error),
                rejected=0,
            )
            yield PreparedShard(key, shard.records, 0, 0, shard.bytes, None, uri, error=str(error))
            continue
        pipeline.ledger.move(
            pipeline.name,
            [key],
            {State.PLANNED},
            State.PREPARED,
            place=pipeline.place,
            rejected=manifest.rejected,
            tokens=manifest.estimated_tokens,
        )
        yield PreparedShard(
            key,
            manifest.planned,
            manifest.valid,
            manifest.rejected,
            manifest.bytes,
            manifest.estimated_tokens,
            uri,
            manifest.lengths,
            manifest.rejected_by_code,
        )


def _waiting(pipeline: Pipeline, keys: Sequence[str]) -> set[str]:
    """The planned ones among `keys` whose records another pipeline has yet to make."""
    if not is_chained(pipeline.settings):
        return set()
    rows = pipeline.ledger.shards(pipeline.name, keys=keys, states=[State.PLANNED])
    planned = [row.key for row in rows]
    return set(planned) - ready_shards(pipeline.settings, pipeline.ledger, planned)


def _prepare_chained(pipeline: Pipeline, shard: Shard) -> InputManifest:
    """Check what the upstream has committed, and settle that this commit is what the shard is made from.

    Once something is made of a commit, it stays settled. Raises SourceError where it is not what
    the upstream has now.
    """
    plan, storage, key = pipeline.summary_of(shard.key), pipeline.storage, shard.key
    for _ in range(MANIFEST_TRIES):
        found = storage.read_versioned(paths.input_manifest(key))
        manifest = prepare_input(pipeline.settings, shard, plan, root=storage)
        assert manifest.upstream is not None, key
        settled = commit_in(found[0]) if found is not None else None
        if settled is not None and settled.sha256 == manifest.upstream.sha256:
            return manifest
        if settled is not None and not _is_untouched(pipeline, key):
            raise committed_anew(plan, key)
        if replace_input_manifest(storage, manifest, found[1] if found is not None else None):
            note_commits(pipeline.settings, pipeline.ledger, {key: manifest.upstream})
            return manifest
    raise SourceError(f"shard {key}: prepared by others again and again; try again when they have ended")


def _is_untouched(pipeline: Pipeline, key: str) -> bool:
    """Whether nothing has been made of the shard's input: if so, it is planned now."""
    begin_anew(pipeline.settings, pipeline.ledger, [key], (State.PREPARED, State.READY))
    row = pipeline.ledger.shard(pipeline.name, key)
    return row is not None and row.state is State.PLANNED


def queue_shards(
    pipeline: Pipeline, keys: Sequence[str], *, recompute: bool = False, done_by: Collection[str] = ()
) -> list[ShardRow]:
    """Put prepared shards into the queue; those further on stay as they are. Returns their rows.

    For a deferred executor that means to render and upload their requests; it ends with a turn of
    the control loop, so that free slots are used at once. Shards embedded under another
    fingerprint count as prepared, as do committed ones if `recompute`, unless a run of `done_by`
    computed them.
    """
    ledger, name = pipeline.ledger, pipeline.name
    _ = pipeline.fingerprint  # a model that cannot be had is refused before anything is queued
    ledger.check_place(name, pipeline.place)
    if recompute:
        recompute_shards(ledger, name, keys, done_by, pipeline.place)
    if pipeline.executor.in_place:
        ledger.move(name, keys, {State.PREPARED}, State.READY, place=pipeline.place)
    else:
        # Whoever asks has mended what the service refused before, or will be told again. What jobs of the same
        # backfill have shown to be wrong is not mended by its next run: `batch-assets run` or `retry` says that it is.
        ledger.clear_blocked(name, output=False)
        upload_shards(pipeline, keys)
        refuse_blocked(pipeline)
    return ledger.shards(name, keys=keys)
