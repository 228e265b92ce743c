"""Preparing shards: records checked, the input manifest written, the job put into the queue."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from batch_assets import paths
from batch_assets.control.pipeline import Pipeline
from batch_assets.control.retrying import recompute_shards
from batch_assets.control.uploading import refuse_blocked, upload_shards
from batch_assets.errors import SourceError
from batch_assets.ledger.rows import ShardRow
from batch_assets.ledger.states import State
from batch_assets.sharding.manifest import prepare_input, write_input_manifest


@dataclass(frozen=True)
class PreparedShard:
    """What checking one shard's records found. `error` says why it could not be read at all.

    `lengths` maps the lower end of each doubling of characters to a number of records.
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


def prepare_shards(pipeline: Pipeline, keys: Sequence[str]) -> Iterator[PreparedShard]:
    """Check the records of each shard and write its manifest; repeatable, in the order of `keys`.

    A shard that cannot be read is prepared with its error: that it fails is found out, with
    all consequences, where it is collected, and the other shards go their way.
    """
    planned = pipeline.plan_shards(keys)
    for key in keys:
        if key not in planned:
            raise SourceError(
                f"shard {key} is in no plan of pipeline {pipeline.name}; materialize shard_plan first"
            )
        shard = planned[key]
        uri = f"{pipeline.storage.uri}/{paths.input_manifest(key)}"
        try:
            manifest = prepare_input(
                pipeline.settings, shard, pipeline.summary_of(key), root=pipeline.storage
            )
        except SourceError as error:
            pipeline.ledger.move(
                pipeline.name, [key], {State.PLANNED}, State.PREPARED, error=str(error), rejected=0
            )
            yield PreparedShard(key, shard.records, 0, 0, shard.bytes, None, uri, error=str(error))
            continue
        write_input_manifest(pipeline.storage, manifest)
        pipeline.ledger.move(
            pipeline.name,
            [key],
            {State.PLANNED},
            State.PREPARED,
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
    if recompute:
        recompute_shards(ledger, name, keys, done_by)
    if pipeline.executor.in_place:
        ledger.move(name, keys, {State.PREPARED}, State.READY)
    else:
        # Whoever asks has mended what the service refused before, or will be told again.
        ledger.clear_blocked(name)
        upload_shards(pipeline, keys)
        refuse_blocked(pipeline)
    return ledger.shards(name, keys=keys)
