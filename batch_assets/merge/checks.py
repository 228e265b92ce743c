"""The two checks of a merged version that stop publishing: accounting and vectors.

Both read the merged files themselves. The third, parity, needs the model and lies above.
`verification.py` asks the same and more from outside, of the whole root.
"""

from collections.abc import Sequence

from batch_assets.embeddings.accounting import Accounting, count_stages
from batch_assets.embeddings.parquet_files import count_rows, iter_vectors, open_parquet
from batch_assets.embeddings.validation import Norms, VectorError, validate_vectors
from batch_assets.errors import AccountingError
from batch_assets.merge.base import CheckOutcome, Manifest, map_in_order, threads_for
from batch_assets.storage import Storage, is_local

SAMPLED_PARTS = 64


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
            part.accounting.check(f"shard {part.shard}")
            embedded += rows
        rejected, failed = count_stages(storage, manifest.path(manifest.failures))
        found = Accounting(sum(part.planned for part in parts), embedded, rejected, failed)
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

    On a local disk every vector is read. On an object store that would fetch the whole dataset
    for what is known already: every vector was checked when it was written, and its file was
    copied as it is. There the first row group of up to 64 parts, evenly spread, is read.
    """
    parts, groups = manifest.parts, None
    if not is_local(storage.uri):
        filled = [part for part in parts if part.rows]
        parts, groups = filled[:: max(1, len(filled) // SAMPLED_PARTS)][:SAMPLED_PARTS], [0]
    dimensions, normalized = manifest.dimensions, manifest.normalized
    norms = Norms()
    try:
        for found in map_in_order(
            lambda part: file_norms(storage, manifest.path(part), dimensions, normalized, groups),
            parts,
            threads_for(storage),
        ):
            norms.add(found)
    except (VectorError, AccountingError) as error:
        return CheckOutcome(False, str(error), {"dimensions": manifest.dimensions})
    what = "all" if groups is None else f"of {manifest.rows}, the others as checked when written,"
    metadata = {"vectors": norms.count, "dimensions": manifest.dimensions} | {
        f"norm_{name}": value for name, value in norms.summary().items()
    }
    message = f"{norms.count} vectors read, {what} finite and of {manifest.dimensions} dimensions"
    return CheckOutcome(True, message, metadata)


def file_norms(
    storage: Storage, path: str, dimensions: int, normalized: bool, groups: Sequence[int] | None = None
) -> Norms:
    """Lengths of a file's vectors, of all or of some row groups; VectorError names the first unsound one."""
    norms = Norms()
    with open_parquet(storage, path) as file:
        for vectors in iter_vectors(file, groups):
            try:
                norms.add(validate_vectors(vectors, dimensions, normalized, first_row=norms.count))
            except VectorError as error:
                raise VectorError(f"{path}: {error}") from None
    return norms
