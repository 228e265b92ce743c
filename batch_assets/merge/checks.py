"""The two checks of a merged version that stop publishing: accounting and vectors.

Where the task is `generate`, `vectors` looks at the answers, of which none may be null.
Both read the merged files themselves. The third, parity, needs the model and lies above.
`verification.py` asks the same and more from outside, of the whole root.
"""

from collections.abc import Iterator

import numpy as np

from batch_assets.embeddings.accounting import Accounting, count_stages
from batch_assets.embeddings.marker import ShardMarker
from batch_assets.embeddings.parquet_files import VECTOR_BATCH, count_rows, iter_vectors, open_parquet
from batch_assets.embeddings.schema import GENERATE, RESPONSE
from batch_assets.embeddings.validation import Norms, VectorError, unsound, validate_vectors
from batch_assets.errors import AccountingError
from batch_assets.merge.base import CheckOutcome, Manifest, Part
from batch_assets.storage import Storage, is_local
from batch_assets.storage.threads import map_in_order, threads_for

ALL_READ = 100_000
READ_EVERY = 8
SAMPLED_PARTS = 64
THREADS = 4


def check_accounting(storage: Storage, manifest: Manifest) -> CheckOutcome:
    """Whether planned = embedded + rejected + failed, counted in the merged files."""
    parts = manifest.parts
    try:
        counted = map_in_order(
            lambda part: count_rows(storage, manifest.path(part)), parts, threads_for(storage)
        )
        embedded = 0
        for part, rows in zip(parts, counted, strict=True):
            if rows != part.rows:
                raise AccountingError(
                    f"{manifest.path(part)}: holds {rows} rows, its manifest says {part.rows}"
                )
            embedded += rows
        shards = manifest.merged_shards
        for shard in shards:
            shard.accounting.check(f"shard {shard.shard}")
        rejected, failed = count_stages(storage, manifest.path(manifest.failures))
        found = Accounting(sum(shard.planned for shard in shards), embedded, rejected, failed)
        found.check(f"merged version {manifest.version}")
        if found != manifest.accounting:
            raise AccountingError(
                f"merged version {manifest.version}: manifest says {manifest.accounting.line()}"
            )
    except AccountingError as error:
        return CheckOutcome(False, str(error), vars(manifest.accounting))
    return CheckOutcome(True, found.line(), vars(found))


def check_vectors(storage: Storage, manifest: Manifest) -> CheckOutcome:
    """Whether the merged vectors are of one dimension, finite and, where they should be, of length 1.

    Every vector was checked when it was written, and the digests prove that its file is the same
    since; the lengths found then are in the manifest, and are checked here. Read again are all
    vectors of a version with up to `ALL_READ` of them, of a larger one those of every
    `READ_EVERY`th row group, on an object store only of `SAMPLED_PARTS` parts: to read all would
    take as long as the merge. `verify` reads all. Of answers as many are read, and none may be null.
    """
    if manifest.task == GENERATE:
        return _check_responses(storage, manifest)
    norms = Norms()
    try:
        if manifest.norms:
            extremes = np.array([manifest.norms["min"], manifest.norms["max"]])
            if unsound(extremes, manifest.vector_dtype, manifest.normalized).any():
                raise VectorError(
                    f"merged version {manifest.version}: lengths when written: {manifest.norms}"
                )
        dimensions, normalized = manifest.dimensions, manifest.normalized
        for found in map_in_order(
            lambda one: file_norms(storage, manifest.path(one[0]), dimensions, normalized, *one[1:]),
            _sample(storage, manifest),
            THREADS,
        ):
            norms.add(found)
    except (VectorError, AccountingError) as error:
        return CheckOutcome(False, str(error), {"dimensions": manifest.dimensions})
    metadata = {"vectors": manifest.rows, "vectors_read": norms.count, "dimensions": manifest.dimensions}
    lengths = {f"norm_{name}": value for name, value in manifest.norms.items()}
    message = (
        f"{manifest.rows} vectors of {manifest.dimensions} dimensions were finite and of the right length when "
        f"written, and so are the {norms.count} read again"
    )
    return CheckOutcome(True, message, metadata | lengths)


def _check_responses(storage: Storage, manifest: Manifest) -> CheckOutcome:
    try:
        read = sum(
            map_in_order(
                lambda one: count_responses(storage, manifest.path(one[0]), *one[1:]),
                _sample(storage, manifest),
                THREADS,
            )
        )
    except AccountingError as error:
        return CheckOutcome(False, str(error), {"responses": manifest.rows})
    message = (
        f"there are no vectors: the task is {manifest.task}. Of {manifest.rows} responses {read} were "
        "read, and none is null"
    )
    return CheckOutcome(True, message, {"responses": manifest.rows, "responses_read": read})


def _sample(storage: Storage, manifest: Manifest) -> Iterator[tuple[Part, int, int]]:
    """Parts to read, each with the first row group and the step from one to the next."""
    parts = [part for part in manifest.parts if part.rows]
    if manifest.rows <= ALL_READ:
        yield from ((part, 0, 1) for part in parts)
    elif is_local(storage.uri):
        # Begun elsewhere in each part, so that parts of one row group are not all read, or all left out.
        yield from ((part, -number % READ_EVERY, READ_EVERY) for number, part in enumerate(parts))
    else:
        step = -(-len(parts) // SAMPLED_PARTS)
        yield from ((part, 0, READ_EVERY) for part in parts[::step])


def file_norms(
    storage: Storage, path: str, dimensions: int, normalized: bool, first: int = 0, every: int = 1
) -> Norms:
    """Lengths of a file's vectors; VectorError names the first unsound one.

    Only every `every`th row group is read, from number `first` on.
    """
    norms = Norms()
    with open_parquet(storage, path) as file:
        for group in range(first, file.num_row_groups, every):
            row = sum(file.metadata.row_group(before).num_rows for before in range(group))
            for vectors in iter_vectors(file, [group]):
                try:
                    norms.add(validate_vectors(vectors, dimensions, normalized, first_row=row))
                except VectorError as error:
                    raise VectorError(f"{path}: {error}") from None
                row += len(vectors)
    return norms


def count_responses(storage: Storage, path: str, first: int = 0, every: int = 1) -> int:
    """Answers in the row groups that `file_norms` would read; AccountingError where one is null."""
    count = 0
    with open_parquet(storage, path) as file:
        if RESPONSE not in file.schema_arrow.names:
            raise AccountingError(f"{path}: has no column {RESPONSE!r}, only {file.schema_arrow.names}")
        groups = range(first, file.num_row_groups, every)
        for batch in file.iter_batches(
            VECTOR_BATCH, row_groups=groups, columns=[RESPONSE], use_threads=False
        ):
            column = batch.column(RESPONSE)
            if column.null_count:
                raise AccountingError(f"{path}: {column.null_count} responses are null")
            count += len(column)
    return count


def check_results(storage: Storage, path: str, written: ShardMarker | Manifest) -> None:
    """Read all of a file's vectors, or answers; VectorError or AccountingError where one is unsound."""
    if written.task == GENERATE:
        count_responses(storage, path)
    else:
        file_norms(storage, path, written.dimensions, written.normalized)
