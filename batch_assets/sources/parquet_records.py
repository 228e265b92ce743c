"""From rows of a Parquet file to records: ids, texts and columns of a batch, and the rows that are none.

Which rows are read is told by `parquet.py`, what is wrong with single columns by `parquet_columns.py`.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_assets.sources.base import BATCH_BYTES, Fault, Records
from batch_assets.sources.column_types import arrow_type, is_bytes, is_text
from batch_assets.sources.decoded import decoded_bytes
from batch_assets.sources.images import FileImages
from batch_assets.sources.json_values import too_large
from batch_assets.sources.parquet_columns import find_overlong, valid_text
from batch_assets.sources.partitions import repeated
from batch_assets.sources.records import RecordBuilder, planned_array
from batch_assets.sources.texts import check_text, not_a_string
from batch_assets.sources.value_texts import id_array, plain_array, text_array

# A value of more than so many times a record's bytes is too long in any form: a number of 8 bytes takes two of JSON.
_FORM_BYTES = 4


def records_of(
    builder: RecordBuilder,
    rows: npt.NDArray[np.int64],
    batch: pa.RecordBatch,
    images: FileImages | None,
    as_text: frozenset[str],
) -> Records:
    """The records of a file's rows (n), which `batch` holds; `as_text` are the columns of bytes to be read as UTF-8."""
    rules = builder.rules
    count = len(rows)
    present = set(batch.schema.names)
    if images is not None and images.whole:
        present.discard(images.column)
    faults: dict[int, Fault] = {}
    readable: dict[str, pa.Array] = {}
    for name in present:
        found = batch.column(name)
        if count == 1 and (size := decoded_bytes(found)) > max(_FORM_BYTES * rules.longest, BATCH_BYTES):
            faults[0] = too_large(size, rules.longest)
            readable[name] = pa.nulls(1)
            continue
        readable[name] = valid_text(found, name, name in as_text, faults)
    ids: list[str | None] = [None] * count
    if rules.id_column in readable:
        found = id_array(readable[rules.id_column])
        ids = found.to_pylist()
        if is_bytes(readable[rules.id_column].type):
            readable[rules.id_column] = found
    arrays: list[pa.Array] = []
    for column in rules.columns:
        if column.source in present:
            arrays.append(planned_array(readable[column.source], column))
        else:
            arrays.append(pa.nulls(count, arrow_type(column.type)))
    texts = [builder.caption(text) for text in _texts(builder, readable, count)]
    find_overlong(texts, ids, arrays, rules.longest)
    values: list[bytes | str | None] | None = None
    if images is not None:
        values, unfit = images.read(batch, readable, rules)
        faults = {**faults, **unfit}
    for index, fault in faults.items():
        texts[index] = fault
    return builder.build(rows.tolist(), texts, ids, arrays, values)


def _texts(builder: RecordBuilder, readable: dict[str, pa.Array], count: int) -> list[str | Fault]:
    names = builder.text_rule.columns
    if builder.rules.text_template is None and names[0] in readable:
        return _texts_of(readable[names[0]], names[0])
    values = {name: text_array(readable[name]).to_pylist() for name in names if name in readable}
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)] or [{}] * count
    return [builder.text_rule(values_of_row) for values_of_row in rows]


def rows_of(batch: pa.RecordBatch, numbers: npt.NDArray[np.int64]) -> pa.RecordBatch:
    """These rows (n, ascending) of a batch, by slices: Arrow takes none out of views of text."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return pa.concat_batches([batch.slice(int(run[0]), len(run)) for run in runs if len(run)] or [batch[:0]])


def with_values(batch: pa.RecordBatch, values: Mapping[str, pa.Scalar], count: int) -> pa.RecordBatch:
    """The rows of a file with its partition columns; a column that the file has itself stays."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    added = {name: repeated(value, count) for name, value in values.items() if name not in columns}
    return pa.RecordBatch.from_pydict(columns | added) if added else batch


def _texts_of(array: pa.Array, name: str) -> list[str | Fault]:
    """The texts of the text column, or what is wrong with each value."""
    array = plain_array(array)
    if is_text(array.type) or pa.types.is_null(array.type):
        return [check_text(value, name) for value in array.to_pylist()]
    valid = array.is_valid().to_pylist()
    return [not_a_string(array.type, name) if one else check_text(None, name) for one in valid]
