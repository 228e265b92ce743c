"""The two checks of a merged version that stop publishing: accounting and vectors.

Both read the merged files themselves. The third, parity, needs the model and lies above.
`verification.py` asks the same and more from outside, of the whole root.
"""

from batch_assets.embeddings.accounting import Accounting, count_stages
from batch_assets.embeddings.parquet_files import count_rows, open_parquet, read_vectors
from batch_assets.embeddings.validation import Norms, VectorError, validate_vectors
from batch_assets.errors import AccountingError
from batch_assets.merge.base import CheckOutcome, Manifest, Part, map_in_order, threads_for
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
    parts, every = manifest.parts, True
    if not is_local(storage.uri):
        step = max(1, len(parts) // SAMPLED_PARTS)
        parts, every = parts[::step][:SAMPLED_PARTS], False
    norms = Norms()
    try:
        for found in map_in_order(lambda part: part_norms(storage, manifest, part, every), parts, 2):
            norms.add(found)
    except (VectorError, AccountingError) as error:
        return CheckOutcome(False, str(error), {"dimensions": manifest.dimensions})
    what = "all" if every else f"of {manifest.rows}, the others as checked when written,"
    metadata = {"vectors": norms.count, "dimensions": manifest.dimensions} | {
        f"norm_{name}": value for name, value in norms.summary().items()
    }
    message = f"{norms.count} vectors read, {what} finite and of {manifest.dimensions} dimensions"
    return CheckOutcome(True, message, metadata)


def part_norms(storage: Storage, manifest: Manifest, part: Part, every: bool) -> Norms:
    """Lengths of a part's vectors, all or its first row group's; VectorError names the first unsound one."""
    path, norms = manifest.path(part), Norms()
    with open_parquet(storage, path) as file:
        groups = file.num_row_groups if every else min(1, file.num_row_groups)
        for group in range(groups):
            vectors = read_vectors(file, group)
            try:
                norms.add(validate_vectors(vectors, manifest.dimensions, manifest.normalized))
            except VectorError as error:
                raise VectorError(f"{path}, row group {group}: {error}") from None
    return norms
