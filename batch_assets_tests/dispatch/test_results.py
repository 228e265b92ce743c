"""What consumers read: one valid JSON object for each message, with its id as it was."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.dispatch.results import ErrorCode, ResultShape

SHAPES = st.builds(
    ResultShape,
    (st.text(min_size=1) | st.integers()).map(lambda value: json.dumps(value).encode()),
    st.just(b"") | st.dictionaries(st.text(), st.integers()).map(lambda value: json.dumps(value).encode()),
    st.booleans(),
)
FLAT, ENVELOPE = ResultShape(b'"a"', b"", False), ResultShape(b'"a"', b"", True)


def read(result: bytes) -> dict[str, Any]:
    """As the strictest of consumers would."""

    def no_such_number(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    pairs: list[list[tuple[str, Any]]] = []

    def once(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.append(found)
        return dict(found)

    value = json.loads(result.decode(), parse_constant=no_such_number, object_pairs_hook=once)
    assert isinstance(value, dict)
    assert len(pairs[-1]) == len(value), "no field stands there twice"
    return value


@given(SHAPES, st.binary() | st.text().map(str.encode), st.integers(200, 599))
def test_any_answer_makes_one_json_object(shape: ResultShape, body: bytes, status: int) -> None:
    result = read(shape.answer(status, body))
    assert result["id"] == json.loads(shape.id_json)
    assert result["status_code"] == status
    assert result.get("metadata") == (json.loads(shape.metadata) if shape.metadata else None)
    assert set(result) <= {"id", "payload", "status_code", "metadata"}
    if shape.is_envelope:
        assert result["payload"] == body.decode(errors="replace")


@given(SHAPES, st.sampled_from(ErrorCode), st.text(), st.none() | st.integers(200, 599), st.binary())
def test_any_error_makes_one_json_object(
    shape: ResultShape, code: ErrorCode, message: str, status: int | None, body: bytes
) -> None:
    result = read(shape.error(code, message, status, body))
    assert result["id"] == json.loads(shape.id_json)
    assert result["error_code"] == code.value
    assert result["error_message"] == message.encode(errors="replace").decode()
    assert result.get("status_code") == status
    assert ("payload" in result, "error" in result) == (shape.is_envelope, not shape.is_envelope)


def test_an_answer_is_json_for_a_flat_message_and_text_for_an_envelope() -> None:
    body = b'{"n": 9007199254740993, "x":1.10}'
    assert FLAT.answer(200, body) == b'{"id":"a","payload":' + body + b',"status_code":200}'
    assert read(ENVELOPE.answer(200, body))["payload"] == body.decode()


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"", ""),
        (b"<html>", "<html>"),
        (b'{"a": NaN}', '{"a": NaN}'),
        (b'{"a": 1} {"b": 2}', '{"a": 1} {"b": 2}'),
        (b'{"a": "\xff"}', '{"a": "\ufffd"}'),
        (b'{"a": "', '{"a": "'),
        (b'\xef\xbb\xbf{"a": 1}', '\ufeff{"a": 1}'),
        (b'{"a": "\n"}', '{"a": "\n"}'),
        (b"[" * 100_000, "[" * 100_000),
        (b"[" * 100_000 + b"]" * 100_000, "[" * 100_000 + "]" * 100_000),
    ],
    ids=lambda value: "" if isinstance(value, str) else repr(value[:12]),
)
def test_a_body_that_is_no_json_is_text(body: bytes, payload: str) -> None:
    assert read(FLAT.answer(200, body))["payload"] == payload
    assert read(ENVELOPE.answer(200, body))["payload"] == payload


@pytest.mark.parametrize("id_json", [b"7", b"9007199254740993", b'"7"', rb'"\u00e4\/"', b'"a\\n"'])
def test_an_id_stays_as_it_was_written(id_json: bytes) -> None:
    assert ResultShape(id_json, b"", False).answer(200, b"{}").startswith(b'{"id":' + id_json + b",")


def test_metadata_stays_as_it_was_written() -> None:
    metadata = b'{ "n": 9007199254740993, "x" : 1.10 }'
    assert metadata in ResultShape(b'"a"', metadata, False).answer(200, b"{}")
    assert metadata in ResultShape(b'"a"', metadata, True).error(ErrorCode.CANCELLED, "gone")


def test_an_error_says_what_the_server_has_answered() -> None:
    told = read(ENVELOPE.error(ErrorCode.INFERENCE_ERROR, "no", 400, b'{"detail":"too long"}'))
    assert (told["status_code"], told["payload"]) == (400, '{"detail":"too long"}')
    assert read(FLAT.error(ErrorCode.INFERENCE_ERROR, "no", 400, b"x")) == {
        "id": "a",
        "status_code": 400,
        "error": "no",
        "error_code": "INFERENCE_ERROR",
        "error_message": "no",
    }


def test_an_envelopes_error_without_an_answer_has_a_payload_all_the_same() -> None:
    told = read(ENVELOPE.error(ErrorCode.DEADLINE_EXCEEDED, 'it is "late"'))
    assert json.loads(told["payload"]) == {"error": 'it is "late"'}
    assert "status_code" not in told
