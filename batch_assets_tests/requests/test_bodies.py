"""A body is refused where its record would be, and is kept as it was sent otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.requests.bodies import BodyRules, UnsupportedType, digest_of, window_line
from batch_assets.sources.base import Fault
from batch_assets_tests.requests.builders import make_settings

RULES = BodyRules(make_settings(Path("/nowhere")))
JSON = "application/json"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
VISIBLE = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda text: "x" + text)


def read(body: bytes, kind: str | None = JSON) -> bytes:
    line = RULES.read(body, kind)
    assert not isinstance(line, Fault), line
    return line


@given(VISIBLE)
def test_a_text_is_kept_whatever_it_holds(text: str) -> None:
    line = window_line(read(text.encode(), "text/plain"), "id", "tenant", "now")
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert json.loads(line) == {"job_id": "id", "tenant": "tenant", "arrival_time": "now", "text": text}


@given(
    VISIBLE,
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=4),
    st.booleans(),
)
def test_an_object_is_kept_however_it_is_written(text: str, others: dict[str, Any], indented: bool) -> None:
    record = {**others, "text": text}
    for own in ("job_id", "tenant", "arrival_time"):
        record.pop(own, None)
    body = json.dumps(record, indent=2 if indented else None, ensure_ascii=indented)
    try:
        encoded = body.encode()
    except UnicodeEncodeError:
        return  # half a surrogate pair: no JSON that could be sent
    found = RULES.read(encoded, JSON)
    if isinstance(found, Fault):
        assert "\\ud" in body.lower(), found
        return
    line = window_line(found, "id", "tenant", "now")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"job_id": "id", "tenant": "tenant", "arrival_time": "now", **record}


def test_long_integers_stay_exact() -> None:
    assert b"12345678901234567890123" in read(b'{"text": "a", "n": 12345678901234567890123}')


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"", JSON, "not_json"),
        (b"{}", JSON, "no_text"),
        (b"[1]", JSON, "not_an_object"),
        (b'{"text": 5}', JSON, "text_not_string"),
        (b'{"text": null}', JSON, "no_text"),
        (b'{"text": " \\n"}', JSON, "empty_text"),
        (b'{"text": "\\ud800"}', JSON, "lone_surrogate"),
        (b'{"text": "\xff"}', JSON, "invalid_utf8"),
        (b'{"text": "a"', JSON, "not_json"),
        (b'{"text": "a", "job_id": 1}', JSON, "reserved_column"),
        (b"\xff", "text/plain", "invalid_utf8"),
        (b" ", "text/plain", "empty_text"),
        (b'{"text": ' + b"[" * 2000 + b"]" * 2000 + b"}", JSON, "not_json"),
    ],
)
def test_what_would_be_rejected_is_refused(body: bytes, kind: str, code: str) -> None:
    found = RULES.read(body, kind)
    assert isinstance(found, Fault)
    assert found.code == code


@pytest.mark.parametrize(
    "kind", ["image/png", "text/html", "text/plain; charset=latin-1", "multipart/form-data"]
)
def test_other_types_are_refused(kind: str) -> None:
    with pytest.raises(UnsupportedType):
        RULES.read(b'{"text": "a"}', kind)


def test_plain_text_needs_a_pipeline_with_one_column() -> None:
    rules = BodyRules(make_settings(Path("/nowhere"), source={"requests": {}, "text_template": "{a} {b}"}))
    with pytest.raises(UnsupportedType, match="a, b"):
        rules.read(b"hello", "text/plain")
    assert rules.read(b'{"a": 1, "b": "x"}', JSON) == b'{"a": 1, "b": "x"}'


def test_the_same_bytes_of_another_type_are_another_body() -> None:
    assert (
        digest_of(b"{}", JSON)
        == digest_of(b"{}", "application/json; charset=utf-8")
        == digest_of(b"{}", None)
    )
    assert digest_of(b"{}", JSON) != digest_of(b"{}", "text/plain")
