"""The ids of the records that a merge publishes, of all generations: counted, and refused where they must be unique.

A record without an id of its own has its place as one, `<shard>:<ordinal>`. What a plan can see of this is
refused there already (`sharding/unique_ids.py`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.errors import AccountingError
from batch_assets.merge.inputs import Input
from batch_assets.settings.source import UNIQUE, Ids
from batch_assets.sources.id_examples import MOST_SUSPECTS, IdExamples
from batch_assets.sources.record_ids import Hashes, IdCount, IdCounter, id_hashes
from batch_assets.storage import Storage
from batch_assets.storage.threads import map_in_order, threads_for

_ROWS_AT_ONCE = 8192
_ID = "record_id"
_PLACE = ["source_file", "source_row"]


def count_ids(storage: Storage, shards: Sequence[Input], ids: Ids) -> IdCount:
    """Count the ids of the shards' embedded records; no other column is read.

    Raises AccountingError, with examples, where they are to be unique and are not, and for a file that
    is not what was committed.
    """
    counter = IdCounter(exact=ids == UNIQUE)
    files = [(shard.shard, shard.embeddings.path) for shard in shards]
    add_files(counter, storage, files)
    counted = counter.count()
    if ids != UNIQUE or counted.unique:
        return counted
    examples = IdExamples(counter.duplicates(MOST_SUSPECTS))
    look_at_files(storage, files, examples)
    if examples:
        raise AccountingError(
            f"source.ids: unique, but {' and '.join(counted.describe())}: {examples}; nothing is published. Mend the "
            "source and `batch-assets plan --replace`, or leave `ids` out, and they are published as they are"
        )
    return replace(counted, duplicates=0, records=0)  # two ids of one hash


def add_files(counter: IdCounter, storage: Storage, files: Iterable[tuple[str, str]]) -> None:
    """Count the ids of embedded records; `files` are (shard's key, path of its embeddings file)."""
    for hashes in map_in_order(partial(_hashes, storage), files, threads_for(storage)):
        counter.add(hashes)


def _hashes(storage: Storage, file: tuple[str, str]) -> Hashes:
    found = [np.array(id_hashes(_own_ids(file[0], batch)), np.int64) for batch in _batches(storage, file, [])]
    return np.concatenate([np.empty(0, np.int64), *found])


def look_at_files(storage: Storage, files: Iterable[tuple[str, str]], examples: IdExamples) -> bool:
    """Show embedded records to `examples`, until it is enough (True)."""
    for file in files:
        for batch in _batches(storage, file, _PLACE):
            paths, rows = (batch.column(name).to_pylist() for name in _PLACE)
            if examples.look(_own_ids(file[0], batch), paths, rows):
                return True
    return False


def _batches(storage: Storage, file: tuple[str, str], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    path = file[1]
    with open_parquet(storage, path) as parquet:
        schema = parquet.schema_arrow
        if not schema.get_all_field_indices(_ID) or schema.field(_ID).type != pa.string():
            raise AccountingError(f"{path}: has no column {_ID!r} of text; embed its shard again")
        yield from parquet.iter_batches(_ROWS_AT_ONCE, columns=[_ID, *columns], use_threads=False)


def _own_ids(shard: str, batch: pa.RecordBatch) -> list[str | None]:
    """The ids, None where a record is named by its place."""
    column: Any = batch.column(_ID)
    places = pc.call_function(
        "match_substring_regex", [column], pc.MatchSubstringOptions(f"^{shard}:[0-9]+$")
    )
    ids = column.to_pylist()
    for index in np.flatnonzero(places.to_numpy(zero_copy_only=False)).tolist():
        ids[index] = None
    return ids
