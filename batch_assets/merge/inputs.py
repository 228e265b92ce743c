"""The committed shards that go into a merge: all there, of one fingerprint, held in little memory.

A hundred thousand shards fit in about 100 MB here; whole markers would not, so each is read,
added up and let go. What is done with the shards is in `parquet.py`.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from batch_assets.embeddings.marker import ShardMarker, read_marker
from batch_assets.embeddings.parquet_files import DataFile
from batch_assets.embeddings.schema import EMBED, Task
from batch_assets.embeddings.validation import Norms
from batch_assets.errors import NotReady
from batch_assets.storage import Storage
from batch_assets.storage.threads import map_in_order, threads_for

NAMED_IN_ERRORS = 5


@dataclass(frozen=True)
class Layout:
    """How a shard's rows are stored; shards of one generation share one. `columns` are (name, plan type)."""

    columns: tuple[tuple[str, str], ...]
    dimensions: int
    vector_dtype: str
    task: Task = EMBED


@dataclass(frozen=True, slots=True)
class Input:
    """One committed shard."""

    shard: str
    planned: int
    layout: Layout
    embeddings: DataFile
    failures: DataFile


@dataclass
class Inputs:
    """All shards of a merge in source order, and what their markers add up to."""

    fingerprint: str
    merge_by: str | None = None
    shards: list[Input] = field(default_factory=list)
    layouts: dict[Layout, Layout] = field(default_factory=dict)
    model: str = ""
    normalized: bool = True
    tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    norms: Norms = field(default_factory=Norms)

    def add(self, planned: int, marker: ShardMarker) -> None:
        columns = tuple(marker.columns.items())
        layout = Layout(columns, marker.dimensions, marker.vector_dtype, marker.task)
        layout = self.layouts.setdefault(layout, layout)
        self.shards.append(Input(marker.shard, planned, layout, marker.embeddings, marker.failures))
        self.model = marker.model
        self.normalized = self.normalized and marker.normalized
        self.tokens += marker.tokens
        self.output_tokens += marker.output_tokens
        if marker.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + marker.cost_usd
        if marker.norms:
            count = marker.embeddings.rows
            low, high, mean = (marker.norms[name] for name in ("min", "max", "mean"))
            self.norms.add(Norms(count, mean * count, low, high))

    @property
    def planned(self) -> int:
        return sum(shard.planned for shard in self.shards)

    @property
    def digest(self) -> str:
        """Digest of the content to be merged; see `digest_of`."""
        shards = self.shards
        lines = ((one.shard, one.planned, one.embeddings.sha256, one.failures.sha256) for one in shards)
        return digest_of(self.fingerprint, lines, self.merge_by)


def digest_of(
    fingerprint: str, shards: Iterable[tuple[str, int, str, str]], merge_by: str | None = None
) -> str:
    """Digest (hex) of what a merge is made from: the same committed shards, grouped alike, give the same.

    `shards` are (key, planned records, sha256 of the embeddings file, sha256 of the failures file).
    """
    grouped = "" if merge_by is None else f" by {merge_by}"
    digest = hashlib.sha256(f"merge 1 {fingerprint}{grouped}\n".encode())
    for shard in shards:
        digest.update(" ".join(map(str, shard)).encode() + b"\n")
    return digest.hexdigest()


def gather(
    storage: Storage, shards: Iterable[tuple[str, int]], fingerprint: str, merge_by: str | None = None
) -> Inputs:
    """Read the markers of `shards`, (key, planned records) in source order.

    Raises NotReady, naming the shards, where some are not committed or are of another fingerprint.
    """
    inputs = Inputs(fingerprint, merge_by)
    missing: list[str] = []
    stale: list[str] = []

    def read(shard: tuple[str, int]) -> tuple[str, int, ShardMarker | None]:
        found = read_marker(storage, shard[0])
        return *shard, None if found is None else found[0]

    for key, planned, marker in map_in_order(read, shards, threads_for(storage)):
        if marker is None:
            missing.append(key)
        elif marker.fingerprint != fingerprint:
            stale.append(key)
        else:
            inputs.add(planned, marker)
    if missing or stale:
        raise NotReady(_not_ready(missing, stale))
    if not inputs.shards:
        raise NotReady("there are no shards to merge; plan the source and embed its shards first")
    return inputs


def _not_ready(missing: Sequence[str], stale: Sequence[str]) -> str:
    parts: list[str] = []
    if missing:
        parts.append(f"{len(missing)} shards are not embedded yet ({name_some(missing)})")
    if stale:
        parts.append(f"{len(stale)} were embedded with another model or setting ({name_some(stale)})")
    return f"cannot merge: {', '.join(parts)}; materialize embedding_outputs for them, or `batch-assets run`"


def name_some(keys: Sequence[str]) -> str:
    """The first few of many shard keys, for a sentence."""
    more = len(keys) - NAMED_IN_ERRORS
    return ", ".join(keys[:NAMED_IN_ERRORS]) + (f" and {more} more" if more > 0 else "")
