"""What is a record, what is rejected and why: the same for lines read in place and from a spool."""

import gzip
from pathlib import Path
from typing import Any

import pytest
import zstandard

from batch_assets_tests.sharding.planning import Planned, plan

GOOD = b'{"text": "good"}'


def plan_lines(folder: Path, lines: list[bytes], kind: str = ".jsonl", **settings: Any) -> Planned:
    data = b"\n".join(lines)
    pack = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".ndjson.zst": zstandard.compress}[kind]
    path = folder / f"lines{kind}"
    path.write_bytes(pack(data))
    return plan(path, folder / "root", **settings)


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz", ".ndjson.zst"])
@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"nope", "not_json"),
        (b'{"text": "cut', "not_json"),
        (b'{"text": "x", "score": nan}', "not_json"),
        (b'{"text": "x", "score": -NaN}', "not_json"),
        (b'{"text": "x", "score": NaN', "not_json"),
        (b"NaN", "not_an_object"),
        (b'{"text": "x"} {"text": "y"}', "not_json"),
        (b"[" * 3000 + b"]" * 3000, "not_json"),
        (b'{"text": "x", "deep": ' + b"[" * 1010 + b"]" * 1010 + b"}", "not_json"),
        (b'["text"]', "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"null", "not_an_object"),
        (b"17", "not_an_object"),
        (b'{"other": "x"}', "no_text"),
        (b'{"text": null}', "no_text"),
        (b'{"text": NaN}', "no_text"),
        (b'{"text": 1e999}', "no_text"),
        (b'{"text": 5}', "text_not_string"),
        (b'{"text": ["a"]}', "text_not_string"),
        (b'{"text": ""}', "empty_text"),
        (b'{"text": " \\t\\n\\u00a0\\u2003"}', "empty_text"),
        (b'{"text": "\xff"}', "invalid_utf8"),
        (b'{"text": "\xed\xa0\x80"}', "invalid_utf8"),
        (b'{"text": "\\ud800"}', "lone_surrogate"),
        (b'{"text": "x", "other": "\\udc00"}', "lone_surrogate"),
        (b'{"text": "x", "score": NaN, "other": "\\udc00"}', "lone_surrogate"),
        (b'{"text": "x", "score": NaN, "other": "\xff"}', "invalid_utf8"),
        (b'{"text": "' + b"x" * 2000 + b'"}', "too_large"),
    ],
)
def test_a_bad_line_is_rejected_with_its_reason(tmp_path: Path, line: bytes, code: str, kind: str) -> None:
    largest = 1_000 if code == "too_large" else 10_000
    planned = plan_lines(tmp_path, [GOOD, line, GOOD], kind, shards={"max_record_bytes": largest})
    assert [(r.ordinal, r.source_row, r.code) for r in planned.rejections()] == [(1, 1, code)]
    assert planned.rejections()[0].message
    assert planned.rows() == [(f"lines{kind}", row) for row in range(3)]
    assert planned.texts() == ["good", "good"]


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz", ".ndjson.zst"])
@pytest.mark.parametrize(
    ("lines", "rows"),
    [
        ([GOOD], [0]),
        ([GOOD, b""], [0]),
        ([b"", b" \t ", GOOD, b"\r", GOOD, b"", b""], [2, 4]),
        ([b"\xef\xbb\xbf" + GOOD, GOOD], [0, 1]),
        ([b"\xef\xbb\xbf", GOOD], [1]),
        ([b"\xef\xbb\xbf  ", b" " + GOOD + b"\r"], [1]),
        ([GOOD + b"\r", GOOD + b"\r", b"\r"], [0, 1]),
        ([b'{"text": "a\xe2\x80\xa8b\xc2\x85c"}', GOOD], [0, 1]),
        ([b'{"text": "a\x0c"}'.replace(b"\x0c", b"\\f"), b"\x0b\x0c", GOOD], [0, 2]),
    ],
)
def test_rows_are_physical_lines(tmp_path: Path, lines: list[bytes], rows: list[int], kind: str) -> None:
    planned = plan_lines(tmp_path, lines, kind)
    assert [row for _, row in planned.rows()] == rows
    assert planned.rejections() == []


def test_a_byte_order_mark_counts_only_at_the_beginning(tmp_path: Path) -> None:
    planned = plan_lines(tmp_path, [GOOD, b"\xef\xbb\xbf" + GOOD])
    assert [rejection.code for rejection in planned.rejections()] == ["not_json"]


@pytest.mark.parametrize("longest", [50, 3_000_000])
def test_lines_longer_than_memory_should_hold_are_skipped_whole(tmp_path: Path, longest: int) -> None:
    huge = b'{"text": "' + b"x" * 5_000_000 + b'"}'
    blank = b" " * 5_000_000
    planned = plan_lines(
        tmp_path, [GOOD, huge, GOOD, blank, huge, GOOD], shards={"max_record_bytes": longest}
    )
    assert [(r.source_row, r.code) for r in planned.rejections()] == [(1, "too_large"), (4, "too_large")]
    assert [row for _, row in planned.rows()] == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz", ".ndjson.zst"])
def test_what_json_lacks_costs_its_value_and_not_the_record(tmp_path: Path, kind: str) -> None:
    lines = [
        b'{"text": "NaN, said \\"-Infinity\\", 1e999", "score": NaN, "deep": [NaN, {"a": -Infinity}], "n": 1}',
        b'{"text": "b", "score": Infinity, "deep": [1e999, -1e999, 1e-999], "n": NaN}',
        b'{"score": 0.5, "n": 3, "text": "c", "deep": {"NaN": "Infinity"}}',
    ]
    planned = plan_lines(tmp_path, lines, kind)
    assert planned.rejections() == []
    assert planned.texts() == ['NaN, said "-Infinity", 1e999', "b", "c"]
    assert planned.columns() == {
        "text": planned.texts(),
        "score": [None, None, 0.5],
        "deep": ['[null,{"a":null}]', "[null,null,0.0]", '{"NaN":"Infinity"}'],
        "n": [1, None, 3],
    }


def test_integers_of_any_readable_length_are_exact_also_beside_nan(tmp_path: Path) -> None:
    digits = [b"7" * 20, b"7" * 400, b"-" + b"7" * 4300, b"7" * 4301]
    lines = [b'{"text": "x", "s": NaN, "n": %s, "f": 7%s}' % (one, b".5" + b"7" * 900) for one in digits]
    planned = plan_lines(tmp_path, lines)
    assert planned.rejections() == []
    assert planned.columns()["n"] == [*(one.decode() for one in digits[:3]), None]
    assert planned.columns()["f"] == [float("7.5" + "7" * 900)] * 4


@pytest.mark.parametrize(
    "line", [b'"' + b'\\"' * 500_000, b"9." * 500_000, b'"a",' * 200_000, b"-" * 900_000]
)
def test_no_line_takes_longer_than_it_is_long(tmp_path: Path, line: bytes) -> None:
    planned = plan_lines(tmp_path, [b'{"a": NaN, "b": ' + line, GOOD])  # the suite's time limit would tell
    assert [rejection.code for rejection in planned.rejections()] == ["not_json"]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b'"a b"', "a b"),
        (b'""', ""),
        (b"7", "7"),
        (b"-0", "0"),
        (b"18446744073709551616", "18446744073709551616"),
        (b"-9223372036854775809", "-9223372036854775809"),
        (b"1.50", "1.5"),
        (b"true", "true"),
        (b'{"a": [1, null]}', '{"a":[1,null]}'),
        (b"null", "g0001-00000:0"),
        (b"NaN", "g0001-00000:0"),
    ],
)
def test_ids_become_text(tmp_path: Path, value: bytes, name: str) -> None:
    planned = plan_lines(tmp_path, [b'{"text": "x", "key": ' + value + b"}"], id_column="key")
    assert planned.ids() == [name]


def test_records_without_an_id_are_named_by_shard_and_ordinal(tmp_path: Path) -> None:
    lines = [b'{"text": "a", "id": 1}', b'{"text": "b"}', b"bad", b'{"text": "", "id": "x"}']
    planned = plan_lines(tmp_path, lines, id_column="id")
    assert planned.ids() == ["1", "g0001-00000:1"]
    assert [rejection.record_id for rejection in planned.rejections()] == ["g0001-00000:2", "x"]


def test_a_template_joins_columns(tmp_path: Path) -> None:
    lines = [
        b'{"title": "T", "body": "B", "n": 3}',
        b'{"title": "T", "n": 3}',
        b'{"title": null, "body": "B", "n": 1}',
        b'{"title": "{n}", "body": "", "n": 2.5}',
    ]
    planned = plan_lines(tmp_path, lines, text_template="{title}: {body} {{{n}}}")
    assert planned.texts() == ["T: B {3}", "{n}:  {2.5}"]
    assert [(r.source_row, r.code) for r in planned.rejections()] == [(1, "no_text"), (2, "no_text")]


@pytest.mark.parametrize("name", ["a.__class__", "a[0]", "a.b", "__class__"])
def test_a_template_names_columns_and_reaches_nothing_in_them(tmp_path: Path, name: str) -> None:
    lines = [b'{"a": {"b": "inside"}}', b'{"a": "x", "' + name.encode() + b'": "the column of that name"}']
    planned = plan_lines(tmp_path, lines, text_template="{" + name + "}")
    assert planned.texts() == ["the column of that name"]
    assert [(r.source_row, r.code) for r in planned.rejections()] == [(0, "no_text")]


def test_of_duplicate_keys_the_last_counts(tmp_path: Path) -> None:
    long = b"123456789012345678901234"
    planned = plan_lines(tmp_path, [b'{"text": "a", "n": 1, "text": "b", "n": ' + long + b"}"])
    assert planned.texts() == ["b"]
    assert planned.columns()["n"] == [long.decode()]
