"""Parquet columns whose lists, structs and maps hold what Arrow has no plain type for."""

import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets_tests.sharding.planning import plan

ID = uuid.UUID("c78595bd-40ca-8443-0837-835d2c494085")
TEXT_ID = uuid.UUID(bytes=b"sixteen letters.")  # whose bytes are valid UTF-8
IDS = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([ID.bytes, TEXT_ID.bytes], pa.binary(16)))
DOCUMENTS = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}', "[1]"]))


@pytest.mark.parametrize(
    ("array", "plan_type", "stored"),
    [
        (pa.ListArray.from_arrays([0, 1, 2], IDS), '{"list":"string"}', [[str(ID)], [str(TEXT_ID)]]),
        (
            pa.MapArray.from_arrays([0, 2, 2], IDS, IDS),
            '{"map":["string","string"]}',
            [[(str(ID), str(ID)), (str(TEXT_ID), str(TEXT_ID))], []],
        ),
        (
            pa.StructArray.from_arrays([IDS, pa.array([None, 2])], names=["key", "n"]),
            '{"struct":{"key":"string","n":"int64"}}',
            [{"key": str(ID), "n": None}, {"key": str(TEXT_ID), "n": 2}],
        ),
        (
            pa.FixedSizeListArray.from_arrays(IDS, 1),
            '{"list":"string","size":1}',
            [[str(ID)], [str(TEXT_ID)]],
        ),
        (
            pa.StructArray.from_arrays([DOCUMENTS], names=["document"]),
            '{"struct":{"document":"string"}}',
            [{"document": '{"a":1}'}, {"document": "[1]"}],
        ),
        (
            pa.array([None, ["b", None]], pa.list_view(pa.string_view())),
            '{"list":"string"}',
            [None, ["b", None]],
        ),
        (
            pa.array(
                [{"a": [[1], None]}, None], pa.struct({"a": pa.large_list_view(pa.list_view(pa.int8()))})
            ),
            '{"struct":{"a":{"list":{"list":"int8"}}}}',
            [{"a": [[1], None]}, None],
        ),
        (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 5], pa.int8())), "bool", [False, True]),
    ],
)
def test_what_is_nested_keeps_its_meaning(
    tmp_path: Path, array: pa.Array, plan_type: str, stored: list[Any]
) -> None:
    pq.write_table(pa.table({"text": ["x", "y"], "v": array}), tmp_path / "a.parquet")
    planned = plan(tmp_path / "a.parquet", tmp_path / "root")
    assert planned.summary.columns["v"] == plan_type
    assert planned.columns()["v"] == stored


def test_views_of_lists_over_batches_and_row_groups(tmp_path: Path) -> None:
    values = [[str(n), None] * (n % 4) if n % 3 else None for n in range(2000)]
    table = pa.table({"text": ["x"] * 2000, "v": pa.array(values, pa.list_view(pa.string()))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    assert plan(tmp_path / "a.parquet", tmp_path / "root", {"records": 450}).columns()["v"] == values


def test_a_struct_with_two_fields_of_one_name(tmp_path: Path) -> None:
    array = pa.StructArray.from_arrays([pa.array([1]), pa.array(["b"])], names=["a", "a"])
    pq.write_table(pa.table({"v": array}), tmp_path / "a.parquet")
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", text_template="{v}")
    assert planned.columns() == {"v": ['{"a":1,"a_2":"b"}']}
    assert planned.texts() == ['{"a":1,"a_2":"b"}']


def test_lists_of_no_items(tmp_path: Path) -> None:
    import polars as pl

    frame = pl.DataFrame({"v": pl.Series([[], []], dtype=pl.Array(pl.Int8, 0))})
    frame.write_parquet(tmp_path / "a.parquet")
    planned = plan(tmp_path / "a.parquet", tmp_path / "root", text_template="x {v}")
    assert planned.summary.columns == {"v": '{"list":"int8"}'}
    assert planned.columns() == {"v": [[], []]}
    assert planned.texts() == ["x []"] * 2


BROKEN = pa.array([b"a", b"\xff", b"c"]).view(pa.string())


@pytest.mark.parametrize(
    "array",
    [
        pa.ListArray.from_arrays([0, 1, 2, 3], BROKEN),
        pa.StructArray.from_arrays([BROKEN], names=["s"]),
        pa.MapArray.from_arrays([0, 1, 2, 3], pa.array(["k"] * 3), BROKEN),
    ],
)
def test_nested_text_that_is_no_utf_8_rejects_its_record(tmp_path: Path, array: pa.Array) -> None:
    pq.write_table(pa.table({"text": ["x", "y", "z"], "v": array}), tmp_path / "a.parquet")
    planned = plan(tmp_path / "a.parquet", tmp_path / "root")
    assert [(one.source_row, one.code) for one in planned.rejections()] == [(1, "invalid_utf8")]
    assert planned.columns()["v"] == [array[0].as_py(), array[2].as_py()]
