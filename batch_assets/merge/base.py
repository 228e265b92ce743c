"""What a merged version is: a manifest of parts, read by everyone who reads merged data.

How parts are made is in `parquet.py`; which version is the published one in `publishing.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pydantic

from batch_assets import paths
from batch_assets.embeddings.accounting import Accounting
from batch_assets.embeddings.schema import EMBED, VECTOR_TYPES, Task
from batch_assets.errors import AccountingError
from batch_assets.sources.column_types import arrow_type
from batch_assets.sources.record_ids import IdCount
from batch_assets.storage import Storage

LONGEST_VECTOR = 2**31 - 1  # Arrow's lists of fixed size can have no more numbers
Progress = Callable[[int, int], None]
"""Called with (records done, records in all)."""


@dataclass(frozen=True, slots=True)
class MergedShard:
    """One shard in a merged version: its records, and the digest of its own file of embedded ones."""

    shard: str
    planned: int
    rows: int
    rejected: int
    failed: int
    source_sha256: str

    @property
    def accounting(self) -> Accounting:
        return Accounting(self.planned, self.rows, self.rejected, self.failed)


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a merged version: the embedded records of one shard, or some of one group's.

    `uri` is relative to the version's folder. `source_sha256` is the digest of the shard's own
    file; it differs from `sha256` where columns had to be cast. Where groups mix the shards'
    rows, the fields from `shard` to `source_sha256` are empty, and the manifest's `shards` has them.
    `group` is the name of the part's group, see `Group`.
    """

    uri: str
    rows: int
    bytes: int
    sha256: str
    shard: str = ""
    planned: int = 0
    rejected: int = 0
    failed: int = 0
    source_sha256: str = ""
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """One of several merged outputs: `name` is a folder of the source or a column's value as text, None for null.

    `folder` is where its parts lie, relative to the version's folder: `data/news`, in older versions `news`.
    """

    name: str | None
    folder: str
    rows: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was planned and not merged, when the version was made."""

    shards: int = 0
    records: int = 0


NOTHING_LEFT_OUT = LeftOut()


@dataclass(frozen=True)
class FailuresPart:
    """The rejected and failed records of all shards, in shard order."""

    uri: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """`manifest.json` of one merged version; `parts` are in source order, or in that of their groups.

    `merge_by` is `folder` or a column where there are groups. `shards` is empty where each part is
    one shard's: `merged_shards` has them either way. `previous` is the version that was published
    when this one was begun. `digest` names the content: the same committed shards give the same. `columns` are plan
    types; `norms` are min, max, mean as measured when each vector was written. Where the `task`
    is `generate`, `tokens` are the input ones, `dimensions` is 0 and `vector_dtype` empty.
    `cost_usd` is what the shards' jobs cost together, None where nothing was paid for. `ids` are those of
    the rows, None where nobody has counted them.
    """

    version: str
    format: str
    fingerprint: str
    digest: str
    parts: list[Part]
    failures: FailuresPart
    rows: int
    planned: int
    rejected: int
    failed: int
    columns: dict[str, str]
    dimensions: int
    vector_dtype: str
    normalized: bool
    tokens: int
    created: str
    norms: dict[str, float] = field(default_factory=dict)
    task: Task = EMBED
    output_tokens: int = 0
    cost_usd: float | None = None
    merge_by: str | None = None
    groups: list[Group] = field(default_factory=list)
    shards: list[MergedShard] = field(default_factory=list)
    left_out: LeftOut = NOTHING_LEFT_OUT
    previous: str | None = None
    ids: IdCount | None = None

    @property
    def merged_shards(self) -> list[MergedShard]:
        """The shards whose records these are, in source order."""
        if self.shards:
            return self.shards
        return [
            MergedShard(part.shard, part.planned, part.rows, part.rejected, part.failed, part.source_sha256)
            for part in self.parts
            if part.shard
        ]

    @property
    def accounting(self) -> Accounting:
        return Accounting(self.planned, self.rows, self.rejected, self.failed)

    def path(self, part: Part | FailuresPart) -> str:
        """Where a part lies, relative to the output root."""
        return f"{paths.merged_folder(self.version)}/{part.uri}"

    @property
    def data_folder(self) -> str:
        """The folder of the parts and their groups, relative to the output root; in older versions the version's.

        There `failures.parquet` lies in it, too: only the manifest tells what are rows.
        """
        data = paths.merged_data(self.version)
        if all(self.path(part).startswith(f"{data}/") for part in self.parts):
            return data
        return paths.merged_folder(self.version)


@dataclass(frozen=True)
class MergeResult:
    """A finished version, not yet published.

    `reused`: it was there already, from the same shards. `expected_current` is what
    `publishing.publish` must find in place.
    """

    manifest: Manifest
    reused: bool
    expected_current: str | None


@dataclass(frozen=True)
class CheckOutcome:
    """What a check found; `message` is a sentence for a person, `metadata` the numbers."""

    passed: bool
    message: str
    metadata: dict[str, Any] = field(default_factory=dict)


_MANIFEST = pydantic.TypeAdapter(Manifest)


def read_manifest(storage: Storage, version: str) -> Manifest | None:
    """The manifest of a version, or None where that version was never finished.

    Raises AccountingError for a file that is no manifest of this version, or names files outside its folder.
    """
    path = paths.merged_manifest(version)
    found = storage.read_versioned(path)
    if found is None:
        return None
    try:
        manifest = _MANIFEST.validate_json(found[0])
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise AccountingError(f"{path}: not a manifest ({where}: {problem['msg']}); merge again") from None
    if manifest.version != version:
        raise AccountingError(f"{path}: is the manifest of version {manifest.version!r}; merge again")
    if (told := _senseless(manifest)) is not None:
        raise AccountingError(f"{path}: not a manifest ({told}); merge again")
    named = [part.uri for part in (*manifest.parts, manifest.failures)]
    named += [group.folder for group in manifest.groups]
    for name in named:
        if not paths.is_inside(name):  # its readers would take, or delete, what is somebody else's
            raise AccountingError(
                f"{path}: names {name[:80]!r}, which is not in the version's folder; merge again"
            )
    if manifest.previous is not None and not paths.is_inside(manifest.previous):
        raise AccountingError(
            f"{path}: names {manifest.previous[:80]!r} as the version before it; merge again"
        )
    return manifest


def _senseless(manifest: Manifest) -> str | None:
    """What the fields cannot be, by their types alone they could."""
    try:
        for plan_type in manifest.columns.values():
            arrow_type(plan_type)
    except ValueError as error:
        return f"columns: {error}"
    possible = 1 <= manifest.dimensions <= LONGEST_VECTOR and manifest.vector_dtype in VECTOR_TYPES
    if manifest.task == EMBED and not possible:
        return f"no vectors are of {manifest.dimensions} dimensions in {manifest.vector_dtype[:80]!r}"
    for part in manifest.parts:
        if part.rows < 0:
            return f"parts: {part.uri[:80]!r} has {part.rows} rows"
    if (rows := sum(part.rows for part in manifest.parts)) != manifest.rows:
        return f"rows: {manifest.rows}, but its parts have {rows} together"
    named: set[str] = set()
    for file in (*manifest.parts, manifest.failures):
        if file.uri in named:
            return f"it names {file.uri[:80]!r} twice"
        named.add(file.uri)
    return None


def write_manifest(storage: Storage, manifest: Manifest) -> None:
    """Finish a version: until this file is there, nobody reads or reuses the others."""
    # Sorted at the top only: the order of `columns` is that of the parts.
    data = orjson.dumps(dict(sorted(vars(manifest).items())), option=orjson.OPT_INDENT_2)
    storage.write(paths.merged_manifest(manifest.version), data + b"\n")
