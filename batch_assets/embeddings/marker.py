"""The commit marker of a shard, `shard.json`: what it says, and how it is put.

A shard's data files count only once a marker names them. The marker is written last, whole
or not at all, and only over the version its writer has seen. Who may write one is the
ledger's business.
"""

from dataclasses import dataclass, field

import orjson
import pydantic

from batch_assets import paths
from batch_assets.embeddings.parquet_files import DataFile
from batch_assets.embeddings.schema import EMBED, GENERATE, Task
from batch_assets.errors import AccountingError
from batch_assets.plain_text import plain_logger
from batch_assets.storage import Storage

logger = plain_logger(__name__)

FORMAT = 1
# Left out where the task is `embed`, which is what a marker without them means.
_OF_GENERATE = ("task", "output_tokens")
_NONZERO = ("earlier_usd", "run")


@dataclass(frozen=True)
class ShardMarker:
    """What is committed for one shard.

    `dtype` is the precision that really computed, `vector_dtype` the one stored. `columns` maps
    passed-through columns to plan types. `counts` has planned, embedded, rejected, failed;
    `norms` min, max, mean (empty where nothing was embedded); `token_histogram` counts records
    by the lower end of each doubling of their tokens; `timings` are seconds.
    `earlier_usd` is what commits before this one have cost, beside its own `cost_usd`. Where the `task` is
    `generate`, `tokens` are the input ones, `dimensions` is 0 and `vector_dtype` empty. `run` is in the names
    of the files where it is not 0, see `paths.embeddings`.
    """

    shard: str
    pipeline: str
    fingerprint: str
    model: str
    executor: str
    job: str
    attempt: int
    fence: int
    dtype: str
    device: str
    dimensions: int
    vector_dtype: str
    normalized: bool
    columns: dict[str, str]
    files: list[DataFile]
    counts: dict[str, int]
    tokens: int
    created: str
    norms: dict[str, float] = field(default_factory=dict)
    token_histogram: dict[int, int] = field(default_factory=dict)
    cost_usd: float | None = None
    earlier_usd: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)
    format: int = FORMAT
    task: Task = EMBED
    output_tokens: int = 0
    run: int = 0

    @property
    def spent_usd(self) -> float:
        """What the shard has cost so far, commits that were replaced among it."""
        return (self.cost_usd or 0.0) + self.earlier_usd

    @property
    def embeddings(self) -> DataFile:
        """The file of the embedded records."""
        return self._file(paths.embeddings(self.shard, self.fence, self.run))

    @property
    def failures(self) -> DataFile:
        """The file of the rejected and failed records."""
        return self._file(paths.failures(self.shard, self.fence, self.run))

    def _file(self, path: str) -> DataFile:
        for file in self.files:
            if file.path == path:
                return file
        raise AccountingError(
            f"{paths.shard_marker(self.shard)}: does not name {path}, which its fence calls for"
        )


_MARKER = pydantic.TypeAdapter(ShardMarker)


def read_marker(storage: Storage, shard: str) -> tuple[ShardMarker, str] | None:
    """The shard's marker and its version, or None where the shard is not committed.

    Raises AccountingError for a file that is no marker of this shard.
    """
    path = paths.shard_marker(shard)
    found = storage.read_versioned(path)
    if found is None:
        return None
    try:
        marker = _MARKER.validate_json(found[0])
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise AccountingError(
            f"{path}: not a commit marker ({where + ': ' if where else ''}{problem['msg']}); "
            "delete it to have the shard embedded again"
        ) from None
    if marker.shard != shard or marker.format != FORMAT:
        raise AccountingError(
            f"{path}: marker of shard {marker.shard!r} in format {marker.format}, where {shard!r} in "
            f"format {FORMAT} is expected; delete it to have the shard embedded again"
        )
    return marker, found[1]


def standing_marker(storage: Storage, shard: str) -> tuple[ShardMarker | None, str | None]:
    """The shard's marker, None where there is none to be read, and the version that a commit is to replace."""
    try:
        found = read_marker(storage, shard)
    except AccountingError as error:
        logger.warning("%s; it is replaced", error)
        damaged = storage.read_versioned(paths.shard_marker(shard))
        return None, None if damaged is None else damaged[1]
    return (None, None) if found is None else found


def commit_marker(storage: Storage, marker: ShardMarker, previous_version: str | None) -> bool:
    """Put the marker if the shard's is still `previous_version` (None: there is none); False if not.

    The data files must be closed before: once this returns True, readers rely on them.
    """
    # Sorted at the top only: the order of `columns` is that of the files.
    fields = {
        name: value
        for name, value in sorted(vars(marker).items())
        if (marker.task == GENERATE or name not in _OF_GENERATE) and (name not in _NONZERO or value)
    }
    data = orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
    path = paths.shard_marker(marker.shard)
    if previous_version is None:
        return storage.create(path, data + b"\n")
    return storage.replace(path, data + b"\n", previous_version)
