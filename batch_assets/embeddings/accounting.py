"""The sum that must come out: planned = embedded + rejected + failed, counted in the files.

Counters and markers are not believed here: embedded records are rows of the embeddings file
by its footer, rejected and failed ones are rows of the failures file by their stage.
"""

from dataclasses import dataclass

import pyarrow as pa

from batch_assets.embeddings.marker import ShardMarker
from batch_assets.embeddings.parquet_files import DataFile, count_rows, open_parquet
from batch_assets.embeddings.schema import INFERENCE, REJECT
from batch_assets.errors import AccountingError
from batch_assets.storage import Storage


@dataclass(frozen=True)
class Accounting:
    """Numbers of records; they add up by `+`."""

    planned: int = 0
    embedded: int = 0
    rejected: int = 0
    failed: int = 0

    def __add__(self, other: "Accounting") -> "Accounting":
        return Accounting(
            self.planned + other.planned,
            self.embedded + other.embedded,
            self.rejected + other.rejected,
            self.failed + other.failed,
        )

    @property
    def holds(self) -> bool:
        return self.planned == self.embedded + self.rejected + self.failed

    def line(self) -> str:
        """The line that commands end with."""
        return (
            f"accounting: planned={self.planned} embedded={self.embedded} "
            f"rejected={self.rejected} failed={self.failed}"
        )

    def check(self, what: str) -> None:
        """Raise AccountingError where the numbers of `what` (shard g0001-00042) do not add up."""
        if not self.holds:
            found = self.embedded + self.rejected + self.failed
            difference = self.planned - found
            verdict = f"{difference} records are missing" if difference > 0 else f"{-difference} are too many"
            raise AccountingError(
                f"{what}: {self.planned} records planned, {found} found in the files ({self.embedded} "
                f"embedded, {self.rejected} rejected, {self.failed} failed): {verdict}"
            )


def account_shard(storage: Storage, planned: int, marker: ShardMarker) -> Accounting:
    """Count a committed shard's files against the plan.

    Reads sizes, footers and the failures' stages, not the vectors: `verify` does that. Raises
    AccountingError where a file is missing or not as committed, or the numbers do not add up.
    """
    what = f"shard {marker.shard}"
    for file in marker.files:
        check_size(storage, file)
    rejected, failed = count_stages(storage, marker.failures.path)
    found = Accounting(planned, count_rows(storage, marker.embeddings.path), rejected, failed)
    found.check(what)
    claimed = {name: marker.counts.get(name) for name in ("planned", "embedded", "rejected", "failed")}
    if claimed != vars(found):
        raise AccountingError(f"{what}: its marker says {claimed}, its files hold {vars(found)}")
    return found


def check_size(storage: Storage, file: DataFile) -> None:
    """Raise AccountingError where the file is missing or has another size than was committed."""
    info = storage.info(file.path)
    if info is None:
        raise AccountingError(f"{file.path}: the file is missing under {storage.uri}")
    if info.size != file.bytes:
        raise AccountingError(f"{file.path}: has {info.size} bytes, {file.bytes} were committed")


def count_stages(storage: Storage, path: str) -> tuple[int, int]:
    """(rejected, failed) of a failures file; the rows stream by."""
    rejected = failed = 0
    with open_parquet(storage, path) as file:
        for batch in file.iter_batches(columns=["stage"]):
            found = count_stages_of(batch.column("stage"), path)
            rejected, failed = rejected + found[0], failed + found[1]
    return rejected, failed


def count_stages_of(stages: pa.Array | pa.ChunkedArray, path: str) -> tuple[int, int]:
    """(rejected, failed) among the stages of some failures; `path` is named where there is another stage."""
    counts = {entry["values"]: entry["counts"] for entry in stages.value_counts().to_pylist()}
    if unknown := counts.keys() - {REJECT, INFERENCE}:
        raise AccountingError(f"{path}: has rows of unknown stage {', '.join(map(repr, unknown))}")
    return counts.get(REJECT, 0), counts.get(INFERENCE, 0)
