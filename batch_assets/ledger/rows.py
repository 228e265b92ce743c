"""What the ledger hands out: frozen copies of its rows, as they were when read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batch_assets.ledger import schema
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.states import State


@dataclass(frozen=True)
class PipelineRow:
    """A pipeline. `planned` counts the records of its shards, superseded ones left out.

    `merged_revision` is the revision that the published version was made from.
    """

    name: str
    root: str
    epoch: int
    fingerprint: str | None
    generation: int
    revision: int
    planned: int
    stop_requested: bool
    merged_revision: int | None


@dataclass(frozen=True)
class ShardRow:
    """A shard. `records`, `rejected`, `embedded`, `failed` count records; `updated_at` is unix seconds.

    `fingerprint` is that of the last commit, also while the shard is computed again.
    """

    pipeline: str
    key: str
    generation: int
    ordinal: int
    state: State
    records: int
    bytes: int
    rejected: int
    embedded: int
    failed: int
    tokens: int | None
    attempt: int
    fence: int
    fingerprint: str | None
    holder: Holder | None
    run_id: str | None
    error: str | None
    superseded: bool
    picture: str | None
    revision: int
    updated_at: float


SHARD_COLUMNS = tuple(schema.shards.c[name] for name in ShardRow.__dataclass_fields__)


def shard_row(values: Mapping[Any, Any]) -> ShardRow:
    """A ShardRow from a row of SHARD_COLUMNS."""
    holder = Holder.decode(values["holder"]) if values["holder"] is not None else None
    fields: dict[str, Any] = {name: values[name] for name in ShardRow.__dataclass_fields__}
    fields |= {"state": State(values["state"]), "holder": holder}
    return ShardRow(**fields)


@dataclass(frozen=True)
class Claim:
    """The right to compute one shard, until another claim has a higher fence."""

    pipeline: str
    shard: str
    fence: int
    attempt: int
    holder: Holder


@dataclass(frozen=True)
class Adoption:
    """What a commit marker says: the shard is committed, whatever the ledger believed."""

    key: str
    fence: int
    fingerprint: str
    embedded: int
    rejected: int
    failed: int
    tokens: int | None


@dataclass(frozen=True)
class Totals:
    """Sums over a pipeline's shards, superseded ones left out; records unless said otherwise.

    `stale` and `stale_shards`: committed under another fingerprint than the pipeline has now.
    """

    shards: int
    planned: int
    bytes: int
    rejected: int
    embedded: int
    failed: int
    tokens: int
    stale: int
    stale_shards: int


@dataclass(frozen=True)
class FileRow:
    """A source file as it was when its shards were planned; `state` is planned, touched or removed."""

    path: str
    size: int
    version: str
    generation: int
    state: str
