"""Why most records of some failures files are bad: the reason that most have, with one of them as an example."""

from collections import Counter
from collections.abc import Iterable

import pyarrow.compute as pc

from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.plain_text import plain_text
from batch_assets.storage import Storage

MOST_ROWS = 200_000
"""Of more failures than that, the first ones tell."""
_COLUMNS = ["source_file", "source_row", "stage", "error_code", "error_message"]


def most_common_reason(storage: Storage, files: Iterable[str]) -> str | None:
    """A sentence on the reason that most rows of these failures files have; None where they have no row."""
    counts = Counter[str]()
    examples: dict[str, str] = {}
    for path in files:
        with open_parquet(storage, path) as parquet:
            for batch in parquet.iter_batches(10_000, columns=_COLUMNS):
                codes = batch.column("error_code")
                for row in codes.value_counts().to_pylist():
                    code = str(row["values"])
                    counts[code] += row["counts"]
                    if code not in examples:
                        examples[code] = _example(
                            batch.slice(pc.index(codes, code).as_py(), 1).to_pylist()[0]
                        )
                if counts.total() >= MOST_ROWS:
                    break
        if counts.total() >= MOST_ROWS:
            break
    if not counts:
        return None
    [(code, count)] = counts.most_common(1)
    share = "all" if count == counts.total() else f"{count:,} of {counts.total():,}"
    return plain_text(f"{share} for {code}, such as {examples[code]}")


def _example(row: dict[str, object]) -> str:
    return f"{row['source_file']}, row {row['source_row']}: {row['error_message']}"
