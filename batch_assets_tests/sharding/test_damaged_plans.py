"""A plan that somebody has changed: whatever is wrong with it is told, and nothing is read by it."""

import contextlib
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets import paths
from batch_assets.errors import StorageError
from batch_assets.sharding.plan_files import read_plan, read_shards, read_summary
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.sharding.chains import plan_upstream

SUMMARY = b"batch_assets.summary"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A root with a plan of two shards, and its summary."""
    root = open_storage(str(tmp_path))
    plan_upstream(root, {"g0001-00000": 5, "g0001-00001": 7})
    return root


def write_table(storage: Storage, table: pa.Table) -> None:
    pq.write_table(table, Path(storage.uri) / paths.plan(1))


def read_table(storage: Storage) -> pa.Table:
    return pq.ParquetFile(Path(storage.uri) / paths.plan(1)).read()


def refused(storage: Storage, said: str) -> None:
    with pytest.raises(
        StorageError, match=rf"g0001\.parquet: is not a plan \({said}.*; restore it from a copy"
    ):
        read_plan(storage, 1)
    with pytest.raises(StorageError, match="is not a plan"):
        read_shards(storage, 1, ["g0001-00000"])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("path", value) for value in ("../x.jsonl", "a/../../x", "..", "/etc/passwd", "a\0b", "", None)),
        *(("shard", value) for value in ("../../x", "g0001-00000/../x", "g1-1", "g0001-00000\n", None)),
        *(("spool", value) for value in ("../../x", "/x", None)),
        *(("records", value) for value in (-1, 2**62, None)),
        *(("first_row", value) for value in (-1, 6, None)),
        *(("last_byte", value) for value in (-1, None)),
        ("version", None),
        ("file_size", -1),
        ("file_complete", None),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(storage: Storage, column: str, value: Any) -> None:
    table = read_table(storage)
    field = table.schema.field(column)
    values = pa.array([value, *table.column(column).to_pylist()[1:]], field.type)
    write_table(storage, table.set_column(table.schema.get_field_index(column), field, values))
    refused(storage, f".*{column}")


def test_a_text_that_is_not_utf_8_is_refused(storage: Storage) -> None:
    table = read_table(storage)
    broken = pa.array([b"\xff", b"\xfe"], pa.binary()).view(pa.string())
    write_table(storage, table.set_column(1, table.schema.field("path"), broken))
    refused(storage, "")


def test_a_table_of_another_form_is_refused(storage: Storage) -> None:
    table = read_table(storage)
    write_table(storage, table.drop_columns(["spool"]))
    refused(storage, "it has other columns")
    write_table(storage, table.set_column(7, "records", table.column("records").cast(pa.string())))
    refused(storage, "it has other columns")
    write_table(storage, table.replace_schema_metadata({}))
    refused(storage, "it holds no summary")


@pytest.mark.parametrize("size", [0, 3, 12, 200, -300, -8, -1])
def test_a_cut_plan_is_refused(storage: Storage, size: int) -> None:
    data = storage.read(paths.plan(1))
    storage.write(paths.plan(1), data[:size])
    refused(storage, "")


def test_every_flipped_byte_is_told_or_does_no_harm(storage: Storage) -> None:
    data = storage.read(paths.plan(1))
    file = Path(storage.uri) / paths.plan(1)
    for place in range(0, len(data), 7):
        file.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        with contextlib.suppress(StorageError):
            read_plan(storage, 1)


BROKEN = [b"null", b"[1]", b"{", b"", b"7", b"{}", b"\xff"]
CHANGES: list[dict[str, Any]] = [
    {"columns": {"x": "evil"}},
    {"columns": 7},
    {"renamed": 7},
    {"renamed": {"x": 7}},
    {"generation": 2},
    {"generation": "1"},
    {"records": -1},
    {"max_record_bytes": 2**63},
    {"superseded": ["../x"]},
    {"superseded": "g0001-00000"},
    {"left_out": [1]},
    {"task": "evil"},
    {"created": "yesterday"},
    {"base_uri": "a\0b"},
    {"base_uri": None},
]


def changed_summaries(storage: Storage) -> list[bytes]:
    content = orjson.loads(storage.read(paths.plan_summary(1)))
    return [*BROKEN, *(orjson.dumps(content | change) for change in CHANGES)]


def test_a_summary_that_makes_no_sense_is_refused(storage: Storage) -> None:
    sound = read_summary(storage, 1)
    for data in changed_summaries(storage):
        storage.write(paths.plan_summary(1), data)
        with pytest.raises(StorageError, match=r"g0001\.json: is not a plan's summary .*; delete it"):
            read_summary(storage, 1)
    storage.delete([paths.plan_summary(1)])
    assert read_summary(storage, 1) == sound


def test_the_summary_inside_a_plan_is_checked_too(storage: Storage) -> None:
    table = read_table(storage)
    for data in changed_summaries(storage):
        write_table(storage, table.replace_schema_metadata({SUMMARY: data}))
        refused(storage, "")
        storage.delete([paths.plan_summary(1)])
        with pytest.raises(StorageError, match=r"g0001\.parquet: is not a plan"):
            read_summary(storage, 1)


def test_fields_of_a_later_version_are_passed_over(storage: Storage) -> None:
    sound = read_summary(storage, 1)
    content = orjson.loads(storage.read(paths.plan_summary(1)))
    storage.write(paths.plan_summary(1), orjson.dumps(content | {"later": [1]}))
    assert read_summary(storage, 1) == sound
