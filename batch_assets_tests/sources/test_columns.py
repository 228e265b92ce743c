"""The types of passed-through columns come from every record, and no value is bent to fit."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.sources.stored_names import stored_names
from batch_assets_tests.sharding.planning import plan, write_lines


def value_lines(values: list[bytes]) -> list[bytes]:
    return [b'{"text": "x", "v": ' + value + b"}" for value in values]


@pytest.mark.parametrize(
    ("values", "plan_type", "stored"),
    [
        ([b"1", b"-2", b"null"], "int64", [1, -2, None]),
        ([b"9223372036854775807", b"-9223372036854775808"], "int64", [2**63 - 1, -(2**63)]),
        ([b"9223372036854775808"], "json", ["9223372036854775808"]),
        ([b"18446744073709551616", b"1"], "json", ["18446744073709551616", "1"]),
        ([b"-9223372036854775809"], "json", ["-9223372036854775809"]),
        ([b"[123456789012345678901234567890]"], "json", ["[123456789012345678901234567890]"]),
        ([b"1.5", b"2"], "float64", [1.5, 2.0]),
        ([b"1.5", b"9007199254740992"], "float64", [1.5, 2.0**53]),
        ([b"1.5", b"9007199254740993"], "json", ["1.5", "9007199254740993"]),
        ([b"0.00012345678901234567", b"1e300"], "float64", [0.00012345678901234567, 1e300]),
        ([b"true", b"null", b"false"], "bool", [True, None, False]),
        ([b"true", b"1"], "json", ["true", "1"]),
        ([b'"2020-01-01"', b'"007"'], "string", ["2020-01-01", "007"]),
        ([b'"a"', b"1"], "json", ['"a"', "1"]),
        ([b'{"a": 1}', b"[]", b"null"], "json", ['{"a":1}', "[]", None]),
        ([b"null", b"null"], "string", [None, None]),
    ],
)
def test_types(tmp_path: Path, values: list[bytes], plan_type: str, stored: list[Any]) -> None:
    path = write_lines(tmp_path / "a.jsonl", value_lines(values))
    planned = plan(path, tmp_path / "root")
    assert planned.summary.columns == {"text": "string", "v": plan_type}
    assert planned.columns()["v"] == stored


def test_the_last_of_many_records_can_decide(tmp_path: Path) -> None:
    lines = [orjson.dumps({"text": "x", "v": number}) for number in range(60_000)]
    path = write_lines(tmp_path / "a.jsonl", [*lines, b'{"text": "x", "v": "word"}'])
    planned = plan(path, tmp_path / "root")
    assert planned.summary.columns["v"] == "json"
    assert planned.columns()["v"][-2:] == ["59999", '"word"']


def test_rejected_records_have_no_say(tmp_path: Path) -> None:
    lines = [b'{"text": "x", "v": 1}', b'{"text": 5, "v": "word"}', b'{"v": [1]}', b'{"text": "y", "v": 2}']
    planned = plan(write_lines(tmp_path / "a.jsonl", lines), tmp_path / "root")
    assert planned.summary.columns == {"text": "string", "v": "int64"}
    assert planned.columns() == {"text": ["x", "y"], "v": [1, 2]}
    assert len(planned.rejections()) == 2


def test_columns_of_some_records_only(tmp_path: Path) -> None:
    lines = [b'{"text": "x", "a": 1}', b'{"b": true, "text": "y"}']
    planned = plan(write_lines(tmp_path / "a.jsonl", lines), tmp_path / "root")
    assert planned.columns() == {"text": ["x", "y"], "a": [1, None], "b": [None, True]}


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [b'{"text": "x", "a": 1, "b": 2}'])
    assert plan(path, tmp_path / "one", columns=["b"]).columns() == {"b": [2]}
    none = plan(path, tmp_path / "none", columns=[])
    assert none.columns() == {}
    assert none.texts() == ["x"]
    assert none.records()[0].columns.num_rows == 1


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({"columns": ["a", "nope"]}, "'nope'"),
        ({"text_column": "body"}, "'body'"),
        ({"text_template": "{text} {lost}"}, "'lost'"),
        ({"id_column": "key"}, "'key'"),
        ({"text_column": "body", "columns": []}, "'body'"),
    ],
)
def test_a_column_that_no_record_has_is_refused(tmp_path: Path, source: dict[str, Any], named: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", [b'{"text": "x", "a": 1}', b'{"text": "y"}'])
    with pytest.raises(ConfigurationError) as caught:
        plan(path, tmp_path / "root", **source)
    assert named in str(caught.value)
    assert "'text', 'a'" in str(caught.value)


def test_where_nothing_is_a_record_at_all_each_line_is_rejected(tmp_path: Path) -> None:
    planned = plan(write_lines(tmp_path / "a.jsonl", [b"x", b"y"]), tmp_path / "root")
    assert [rejection.code for rejection in planned.rejections()] == ["not_json", "not_json"]


def test_too_many_columns_ask_for_a_choice(tmp_path: Path) -> None:
    lines = [orjson.dumps({"text": "x", f"key{number}": 1}) for number in range(1_100)]
    path = write_lines(tmp_path / "a.jsonl", lines)
    with pytest.raises(ConfigurationError, match=r"source\.columns"):
        plan(path, tmp_path / "root")
    assert plan(path, tmp_path / "root", columns=["key1099"]).columns()["key1099"][-1] == 1


@pytest.mark.parametrize(
    ("names", "stored"),
    [
        (["a", "embedding"], ["a", "user_embedding"]),
        (["record_id", "user_record_id"], ["user_record_id_2", "user_record_id"]),
        (["Embedding", "embedding"], ["user_Embedding", "user_embedding_2"]),
        (["Title", "title", "TITLE"], ["Title", "user_title", "user_TITLE_2"]),
        (["response", "input_tokens"], ["user_response", "user_input_tokens"]),
    ],
)
def test_columns_that_the_output_needs_are_renamed(names: list[str], stored: list[str]) -> None:
    assert [stored_names(names)[name] for name in names] == stored


def test_renamed_columns_keep_their_values(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [b'{"text": "x", "embedding": [1], "source_row": 9}'])
    planned = plan(path, tmp_path / "root")
    assert planned.columns() == {"text": ["x"], "user_embedding": ["[1]"], "user_source_row": [9]}
