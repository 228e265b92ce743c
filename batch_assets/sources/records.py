"""From rows to records: ids, texts, columns, and a rejection for each row that is none.

Where rows come from is the formats' business; the rules themselves stand in `texts.py`,
`json_values.py` and `arrays.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from batch_assets.errors import SourceError
from batch_assets.sources.arrays import array_of, arrow_array
from batch_assets.sources.base import FETCHED_BYTES, Fault, RecordRules, Records, Rejection
from batch_assets.sources.column_kinds import Column
from batch_assets.sources.column_types import arrow_type
from batch_assets.sources.json_values import json_text
from batch_assets.sources.partitions import FileValues, repeated, where
from batch_assets.sources.texts import TextRule
from batch_assets.sources.value_texts import id_text

_REJECTION_BYTES = 200  # of the object itself


class RecordBuilder:
    """Builds the records of one segment, batch by batch, counting ordinals from `ordinal`.

    `partitions` are the values that stand beside the file: JSON objects that lack them have them.
    """

    def __init__(
        self,
        rules: RecordRules,
        source_file: str,
        ordinal: int,
        partitions: Mapping[str, pa.Scalar] = MappingProxyType({}),
    ) -> None:
        self.rules = rules
        self._beside = FileValues(partitions)
        self.text_rule = TextRule(rules.text_column, rules.text_template)
        self._source_file = source_file
        self._ordinal = ordinal
        self._schema = pa.schema([(column.stored, arrow_type(column.type)) for column in rules.columns])

    def from_objects(
        self,
        rows: Sequence[int],
        objects: Sequence[dict[str, Any] | Fault],
        faults: Mapping[int, Fault] = MappingProxyType({}),
        images: Sequence[bytes | str | None] | None = None,
    ) -> Records:
        """Records from parsed JSON objects and the faults of those that could not be parsed.

        `faults` are of objects, by index, which could; `images` as in `build`.
        """
        own = [{} if isinstance(item, Fault) else item for item in objects]
        known = [self._beside.merged(item) for item in own]
        text_rule, caption = self.text_rule, self.caption
        texts = [
            item if isinstance(item, Fault) else caption(text_rule(merged))
            for item, merged in zip(objects, known, strict=True)
        ]
        for index, fault in faults.items():
            texts[index] = fault
        arrays: list[pa.Array] = []
        # A rejected record's values had no say in the columns' types, and may be of any other.
        valid = [{} if isinstance(text, Fault) else item for item, text in zip(known, texts, strict=True)]
        of_valid = [item for item, text in zip(own, texts, strict=True) if not isinstance(text, Fault)]
        for column in self.rules.columns:
            beside = self._beside.values.get(column.source)
            if beside is not None and all(item.get(column.source) is None for item in of_valid):
                lacking = pa.array([column.source not in item for item in own])
                arrays.append(planned_array(where(lacking, repeated(beside, len(own))), column))
                continue
            values = [item.get(column.source) for item in valid]
            arrays.append(self._array(rows, values, column.source, column.type, texts))
        ids: list[str | None] = [None] * len(known)
        if self.rules.id_column is not None:
            for index, item in enumerate(known):
                found = id_of(item, self.rules.id_column)
                if isinstance(found, Fault):
                    texts[index] = found
                else:
                    ids[index] = found
        return self.build(rows, texts, ids, arrays, images)

    def caption(self, text: str | Fault) -> str | Fault:
        """The text; beside an image it may be missing."""
        return "" if self.rules.images and isinstance(text, Fault) else text

    def _array(
        self, rows: Sequence[int], values: list[Any], name: str, plan_type: str, texts: list[str | Fault]
    ) -> pa.Array:
        try:
            return array_of(values, plan_type)
        except RecursionError:
            for index, value in enumerate(values):
                try:
                    json_text(value)
                except RecursionError:
                    values[index] = None
                    texts[index] = Fault("not_json", f"column {name!r} is nested too deeply to be stored")
            return array_of(values, plan_type)
        except pa.ArrowException as error:
            raise SourceError(
                f"{self._source_file}, rows {rows[0]} to {rows[-1]}: column {name!r} holds a value that is "
                f"not {plan_type}, as it was planned ({error}); `plan --replace` plans the file anew"
            ) from error

    def build(
        self,
        rows: Sequence[int],
        texts: Sequence[str | Fault],
        ids: Sequence[str | None],
        arrays: Sequence[pa.Array],
        images: Sequence[bytes | str | None] | None = None,
    ) -> Records:
        """Records from columns that are in the plan's types already; all arguments have a value per row.

        Rows without an image are faults among `texts`. A record without an id is named `<shard>:<ordinal>`.
        """
        first, self._ordinal = self._ordinal, self._ordinal + len(rows)
        shard = self.rules.shard
        record_ids = [f"{shard}:{first + i}" if value is None else value for i, value in enumerate(ids)]
        batch = pa.RecordBatch.from_arrays(list(arrays), schema=self._schema)
        if not self.rules.columns:
            batch = empty_columns(len(rows))
        bad = [index for index, text in enumerate(texts) if isinstance(text, Fault)]
        rejections = [self._rejection(first + i, record_ids[i], rows[i], texts[i]) for i in bad]
        good: Sequence[int] = range(len(rows))
        if bad:
            excluded = set(bad)
            good = [index for index in good if index not in excluded]
            batch = batch.take(pa.array(good, pa.int64())) if self.rules.columns else empty_columns(len(good))
        return Records(
            ordinals=[first + index for index in good],
            record_ids=[record_ids[index] for index in good],
            source_files=[self._source_file] * len(good),
            source_rows=[int(rows[index]) for index in good],
            texts=[text for text in texts if isinstance(text, str)],
            columns=batch,
            rejections=rejections,
            images=None if images is None else [image for i in good if (image := images[i]) is not None],
        )

    def _rejection(self, ordinal: int, record_id: str, row: int, fault: Any) -> Rejection:
        return Rejection(ordinal, record_id, self._source_file, int(row), fault.code, fault.message)


def planned_array(array: pa.Array, column: Column) -> pa.Array:
    """An Arrow column in the plan's type. Raises SourceError where it holds what that cannot."""
    try:
        return arrow_array(array, column.type)
    except pa.ArrowException as error:
        raise SourceError(
            f"column {column.source!r} holds values that are not {column.type}, as it was planned ({error}); "
            "`plan --replace` plans the file anew"
        ) from error


def id_of(item: Any, column: str) -> str | Fault | None:
    """The id in a parsed line: None where it has none, a fault where it is no object or the id cannot be written."""
    if type(item) is not dict:
        return item if isinstance(item, Fault) else Fault("not_an_object", "the line holds no JSON object")
    try:
        return id_text(item.get(column))
    except RecursionError:
        return Fault("not_json", f"column {column!r} is nested too deeply for an id")


def empty_columns(rows: int) -> pa.RecordBatch:
    """A batch of no columns that still knows its number of rows."""
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def joined(batches: Iterator[Records], most_records: int, most_bytes: int) -> Iterator[Records]:
    """The same records in fewer batches: small neighbours are put together."""
    pending: list[Records] = []
    count = size = 0
    for batch in batches:
        weight = len(batch) + len(batch.rejections)
        length = bytes_without_images(batch) + _image_bytes(batch)
        if pending and (count + weight > most_records or size + length > most_bytes):
            yield _join(pending)
            pending, count, size = [], 0, 0
        pending.append(batch)
        count, size = count + weight, size + length
    if pending:
        yield _join(pending)


def bytes_without_images(batch: Records) -> int:
    """About what a batch takes in memory, its ids and rejections too, which may be all that it has."""
    rejected = sum(len(item.record_id) + len(item.message) + _REJECTION_BYTES for item in batch.rejections)
    return sum(map(len, batch.texts)) + sum(map(len, batch.record_ids)) + batch.columns.nbytes + rejected


def _image_bytes(batch: Records) -> int:
    return sum(len(image) if isinstance(image, bytes) else FETCHED_BYTES for image in batch.images or ())


def _join(batches: list[Records]) -> Records:
    if len(batches) == 1:
        return batches[0]
    rows = sum(len(batch) for batch in batches)
    columns = [batch.columns for batch in batches]
    return Records(
        ordinals=[item for batch in batches for item in batch.ordinals],
        record_ids=[item for batch in batches for item in batch.record_ids],
        source_files=[item for batch in batches for item in batch.source_files],
        source_rows=[item for batch in batches for item in batch.source_rows],
        texts=[item for batch in batches for item in batch.texts],
        columns=pa.concat_batches(columns) if columns[0].num_columns else empty_columns(rows),
        rejections=[item for batch in batches for item in batch.rejections],
        images=None if batches[0].images is None else [item for b in batches for item in b.images or ()],
    )
