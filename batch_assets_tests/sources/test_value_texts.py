"""Ids, templates and texts from columns of every type: one form each, wherever they are written."""

import datetime
import decimal
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets_tests.sharding.planning import Planned, plan, write_lines

NAN = float("nan")
UUID = uuid.UUID("c785bd40-ca84-4308-b835-5d2c49408147")
PLACE = "g0001-00000:0"


def planned(tmp_path: Path, array: pa.Array, **source: Any) -> Planned:
    pq.write_table(pa.table({"text": ["x"] * len(array), "v": array}), tmp_path / "a.parquet")
    return plan(tmp_path / "a.parquet", tmp_path / "root", **source)


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (pa.array([1.0]), "1"),
        (pa.array([2.0**53], pa.float32()), "9007199254740992"),
        (pa.array([1.5]), "1.5"),
        (pa.array([0.1], pa.float32()), "0.1"),
        (pa.array([NAN]), PLACE),
        (pa.array([float("inf")]), PLACE),
        (pa.nulls(1), PLACE),
        (pa.array([2**64 - 1], pa.uint64()), "18446744073709551615"),
        (pa.array([True]), "true"),
        (pa.array(["a"]).dictionary_encode(), "a"),
        (pa.array([b"key"]), "key"),
        (pa.array([b"key"]).dictionary_encode(), "key"),
        (pa.array([UUID.bytes], pa.uuid()), str(UUID)),
        (pa.array([UUID.bytes], pa.binary(16)), str(UUID)),
        (pa.array([UUID.bytes]), str(UUID)),
        (pa.array([b"\xff\x00"]), "ff00"),
        (pa.array([b"ab"], pa.binary(2)), "6162"),
        (pa.array([datetime.date(2024, 1, 2)]), "2024-01-02"),
        (pa.array([decimal.Decimal("1.50")]), "1.50"),
        (pa.array([[1, 2]]), "[1,2]"),
    ],
)
def test_ids(tmp_path: Path, array: pa.Array, name: str) -> None:
    found = planned(tmp_path, array, id_column="v")
    assert found.ids() == [name]
    if array.type in (pa.binary(), pa.binary(2), pa.binary(16)):
        assert found.columns()["v"] == [name]


@pytest.mark.parametrize(
    ("value", "name"), [(b"1.0", "1"), (b"1.5", "1.5"), (b"1", "1"), (b'"1.0"', "1.0"), (b"null", PLACE)]
)
def test_ids_of_json(tmp_path: Path, value: bytes, name: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", [b'{"text": "x", "v": ' + value + b"}"])
    assert plan(path, tmp_path / "root", id_column="v").ids() == [name]


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (pa.array([0.1], pa.float32()), "0.1"),
        (pa.array([1.0]), "1.0"),
        (pa.array([np.float16(0.5)], pa.float16()), "0.5"),
        (pa.array([decimal.Decimal("1.20")]), "1.20"),
        (pa.array([decimal.Decimal("0E-10")]), "0.0000000000"),
        (pa.array([b"\xff"]), "/w=="),
        (pa.array([datetime.timedelta(seconds=2)], pa.duration("ms")), "2000ms"),
        (pa.array([datetime.datetime(2024, 1, 2)], pa.timestamp("ms", "UTC")), "2024-01-02T00:00:00.000Z"),
        (pa.array([UUID.bytes], pa.uuid()), str(UUID)),
        (pa.array([{"price": decimal.Decimal("1.20"), "b": b"\xff"}]), '{"price":"1.20","b":"/w=="}'),
        (
            pa.array([{"d": datetime.timedelta(seconds=1), "l": [0.1, NAN]}], pa.struct(
                [("d", pa.duration("s")), ("l", pa.list_(pa.float32()))])),
            '{"d":"1s","l":[0.1,null]}',
        ),
        (pa.array([["a"]]).cast(pa.list_(pa.large_string())), '["a"]'),
        (pa.array([[("k", decimal.Decimal("1.0"))]], pa.map_(pa.string(), pa.decimal128(3, 1))), '[["k","1.0"]]'),
    ],
)  # fmt: skip
def test_templates(tmp_path: Path, array: pa.Array, text: str) -> None:
    assert planned(tmp_path, array, text_template="{text} {v}").texts() == [f"x {text}"]


def test_what_is_no_number_leaves_a_template_without_text(tmp_path: Path) -> None:
    found = planned(tmp_path, pa.array([0.5, NAN, None], pa.float32()), text_template="{text} {v}")
    assert found.texts() == ["x 0.5"]
    assert [(r.source_row, r.code) for r in found.rejections()] == [(1, "no_text"), (2, "no_text")]


@pytest.mark.parametrize(
    "array",
    [
        pa.array([b"hello", b"\xff\xff\xff\xff\xff"]).dictionary_encode(),
        pa.array([b"hello", b"\xff" * 5], pa.binary(5)),
        pa.array([b"hello", b"\xff"], pa.binary_view()),
        pa.array([b"hello", b"\xff"], pa.large_binary()),
    ],
)
def test_text_as_bytes_of_any_form_is_utf_8(tmp_path: Path, array: pa.Array) -> None:
    found = planned(tmp_path, array, text_column="v")
    assert found.texts() == ["hello"]
    assert [(r.source_row, r.code) for r in found.rejections()] == [(1, "invalid_utf8")]
    assert found.columns()["v"] == ["hello"]


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (pa.array([1]), "a number"),
        (pa.array([True]), "a boolean"),
        (pa.array([{"a": 1}]), "an object"),
        (pa.array([datetime.date(2024, 1, 2)]), "of type date32"),
        (pa.array([["a"]]), "of type list"),
    ],
)
def test_a_text_column_of_something_else(tmp_path: Path, array: pa.Array, what: str) -> None:
    [rejected] = planned(tmp_path, array, text_column="v").rejections()
    assert rejected.code == "text_not_string"
    assert what in rejected.message
