"""What is read from a message: the call, until when, and by what it is known; and what is refused, how."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.dispatch.messages import CHAT, COMPLETIONS, EMBEDDINGS, InvalidMessage, Message, parse

PAYLOAD = {"prompt": "a"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def flat(**fields: Any) -> bytes:
    return json.dumps({"id": "a", "payload": PAYLOAD} | fields).encode()


def envelope(internal: Any = None, **fields: Any) -> bytes:
    data = {"id": "a", "payload": PAYLOAD} | fields
    whole = {"internal": internal or {"retry_count": 2}, "request_kind": "plain", "data": data}
    return json.dumps(whole).encode()


def refused(body: bytes) -> InvalidMessage:
    with pytest.raises(InvalidMessage) as told:
        parse(body)
    return told.value


@pytest.mark.parametrize("shape", [flat, envelope])
def test_both_shapes_say_the_same(shape: Any) -> None:
    message = parse(
        shape(deadline=4_000, created=3, metadata={"userid": "u"}, headers={"X-A": "b"}, endpoint="/v1/score")
    )
    assert (message.id, message.deadline, message.created, message.path) == ("a", 4_000.0, 3.0, "/v1/score")
    assert json.loads(message.payload) == PAYLOAD
    assert (message.metadata, message.headers) == ({"userid": "u"}, {"X-A": "b"})
    assert message.shape.is_envelope is (shape is envelope)


@pytest.mark.parametrize(
    ("given", "deadline"),
    [
        (1_700_000_000, 1_700_000_000.0),
        (1_700_000_000.5, 1_700_000_000.5),
        ("1700000000", 1_700_000_000.0),
        ("1700000000.25", 1_700_000_000.25),
        (0, 0.0),
        (-1, -1.0),
        (None, None),
        ("", None),
    ],
)
def test_a_deadline_is_a_number_or_text(given: Any, deadline: float | None) -> None:
    assert parse(flat(deadline=given)).deadline == deadline


def test_a_deadline_may_be_missing() -> None:
    assert parse(flat()).deadline is None


@pytest.mark.parametrize(
    "given", ["soon", "2026-01-01", True, [1], {}, "nan", "inf", "-Infinity", 10**400, "1e400"]
)
def test_another_deadline_is_refused_and_answered(given: Any) -> None:
    error = refused(flat(deadline=given))
    assert "deadline" in str(error)
    assert error.shape is not None and error.shape.id_text == "a"


def test_a_deadline_that_is_no_number_at_all_is_refused() -> None:
    assert refused(b'{"id":"a","deadline":1e999,"payload":{"prompt":"a"}}').shape is not None


def test_when_it_was_created_is_no_reason_to_refuse_it() -> None:
    assert parse(flat(created="yesterday")).created is None


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (b"7", "7"),
        (b"-7", "-7"),
        (b"9007199254740993", "9007199254740993"),
        (b"1" * 30, "1" * 30),
        (b'"7"', "7"),
    ],
)
def test_an_id_may_be_an_integer_and_stays_one(given: bytes, text: str) -> None:
    message = parse(b'{"id":%s,"payload":{"prompt":"a"}}' % given)
    assert (message.id, message.shape.id_json) == (text, given)


@given(
    st.dictionaries(st.text(), JSON, max_size=5),
    st.booleans(),
    st.sampled_from([None, 1, "\t", "\r\n "]),
    st.sampled_from([(",", ":"), (" , ", "\n:\t"), (",\r\n", ": ")]),
    st.booleans(),
)
def test_a_payload_stays_byte_for_byte(
    payload: dict[str, Any], ascii_only: bool, indent: Any, separators: tuple[str, str], in_envelope: bool
) -> None:
    text = json.dumps(
        payload | {"input": 1, "stream": False},
        ensure_ascii=ascii_only, indent=indent, separators=separators,
    ).encode(errors="surrogatepass")  # fmt: skip
    body = b' {"payload" :\n' + text + b'\t, "id":"a" }'
    if in_envelope:
        body = b'{ "data":' + body + b' , "internal":{}}\n'
    message = parse(body)
    assert message.payload == text


def test_numbers_and_escapes_of_a_payload_stay_as_they_were_written() -> None:
    payload = rb'{"prompt":"\u0061\/\u0000","a":[1.10,1e400,-0,9007199254740993],"a":2,"\u0061":null}'
    assert parse(b'{"id":"a","payload":%s}' % payload).payload == payload


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_an_id_may_be_any_text(text: str) -> None:
    assert parse(flat(id=text)).id == text


@given(st.binary() | st.text().map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidMessage):
        assert isinstance(parse(body), Message)


@given(st.data())
def test_damaged_messages_are_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(envelope(metadata={"a": ["ä"]}, headers={"a": "b"}, deadline="7", endpoint="/x"))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidMessage):
        assert isinstance(json.loads(parse(bytes(body)).payload), dict)


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"messages": []}, CHAT),
        ({"prompt": "a"}, COMPLETIONS),
        ({"input": "a"}, EMBEDDINGS),
        ({"input": "a", "messages": [], "prompt": ""}, CHAT),
    ],
)
def test_the_payload_tells_the_path(payload: Any, path: str) -> None:
    assert parse(flat(payload=payload)).path == path
    assert parse(flat(payload=payload, endpoint="")).path == path


def test_a_payload_that_tells_no_path_needs_an_endpoint() -> None:
    assert "endpoint" in str(refused(flat(payload={"text": "a"})))
    assert parse(flat(payload={"text": "a"}, endpoint="/classify")).path == "/classify"


@pytest.mark.parametrize(
    "path", ["/", "/v1/chat/completions", "/a/b..c/...", "/models/a:b@c", "/ä", "/a%20b"]
)
def test_an_endpoint_is_a_path_of_the_workers_server(path: str) -> None:
    assert parse(flat(endpoint=path)).path == path


@pytest.mark.parametrize(
    "path",
    [
        "http://elsewhere/v1/chat/completions", "//elsewhere/v1", "v1/score", "elsewhere", "@elsewhere/",
        ".elsewhere/", ":80/", "/..", "/../admin", "/v1/../../admin", "/v1/..", "/%2e%2e/admin",
        "/a/.%2E/b", "/a b",
        "/a\n", "/a\r\nHost: b", "/a?b=c", "/a#b", "\\\\elsewhere", "/\\elsewhere", 7, ["/a"], {},
    ],
)  # fmt: skip
def test_any_other_endpoint_is_refused_and_answered(path: Any) -> None:
    error = refused(flat(endpoint=path))
    assert "endpoint" in str(error)
    assert error.shape is not None


def test_headers_of_the_connection_are_the_workers() -> None:
    names = ["Host", "content-length", "Content-Type", "TRANSFER-ENCODING", "Connection", "content-encoding"]
    headers = dict.fromkeys(names, "7") | {"X-Request-Id": "a", "authorization": "Bearer b"}
    assert parse(flat(headers=headers)).headers == {"X-Request-Id": "a", "authorization": "Bearer b"}


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "a\r\nX-B: b"}, {"X-A": "a\nb"}, {"X-A": "a\rb"}, {"X-A": "a\0"}, {"X-A\r\nX-B": "a"},
        {"X A": "a"},
        {"": "a"}, {"X-A:": "a"}, {"X-A": 7}, {"X-A": None}, {"X-A": ["a"]}, {"Host": "a\nb"}, ["X-A"],
        "X-A: a",
    ],
)  # fmt: skip
def test_headers_that_cannot_be_sent_are_refused_and_answered(headers: Any) -> None:
    error = refused(flat(headers=headers))
    assert "headers" in str(error)
    assert error.shape is not None


@pytest.mark.parametrize(
    ("body", "is_answered"),
    [
        (flat(payload=None), True),
        (b'{"id":"a"}', True),
        (b'{"data":{"id":"a"}}', True),
        (flat(payload=[{"prompt": "a"}]), True),
        (flat(payload="{}"), True),
        (flat(payload=7), True),
        (flat(payload=PAYLOAD | {"stream": True}), True),
        (flat(metadata=[]), True),
        (flat(metadata="a"), True),
        (flat(id="a\0b"), True),
        (b'{"id":"a","payload":{"prompt":NaN}}', True),
        (b'{"id":"a","payload":{"prompt":-Infinity}}', True),
        (b'{"id":"a","payload":{"prompt":"\\ud800"}}', True),
        (b'{"id":"a","data":null,"payload":{"prompt":"a"}}', True),
        (b'{"data":{"id":"a","payload":{"prompt":NaN}}}', True),
        (b'{"payload":{"prompt":"a"}}', False),
        (flat(id=None), False),
        (flat(id=""), False),
        (flat(id=1.5), False),
        (flat(id=True), False),
        (flat(id=["a"]), False),
        (b'{"id":1e400,"payload":{"prompt":"a"}}', False),
        (b'{"id":%s,"payload":{"prompt":"a"}}' % (b"1" * 5_000), False),
        (b'{"id":"a","data":{"payload":{"prompt":"a"}}}', False),
        (b'{"id":"a","payload":{"prompt":"\xff"}}', False),
        (b'{"id":"a","payload":{"prompt":"a"},"metadata":{"b":"\xff"}}', False),
        (b'{"id":"\xff","payload":{"prompt":"a"}}', False),
        (b'{"id":"a","payload":{"prompt":"a"},"else":"\xff"}', False),
        (b'{"id":"a","payload":{"prompt":%s}}' % (b"[" * 100_000 + b"]" * 100_000), False),
        (b'{"id":"a","payload":{"prompt":%s' % (b'{"a":' * 100_000), False),
        (b'{"id":"a","payload":{"prompt":"a"}} {}', False),
        (b'{"id":"a","payload":{"prompt":"a"}', False),
        (b"[" + flat() + b"]", False),
        (b'"a"', False),
        (b"null", False),
        (b"", False),
        (b"\0", False),
    ],
)
def test_what_is_no_message_is_answered_where_it_has_an_id(body: bytes, is_answered: bool) -> None:
    error = refused(body)
    assert (error.shape is not None) is is_answered
    if error.shape is not None:
        assert error.shape.id_text == json.loads(error.shape.id_json)
        assert error.shape.is_envelope is body.startswith(b'{"data"')
    assert len(str(error)) < 500


def test_a_payload_may_say_that_it_does_not_stream() -> None:
    assert parse(flat(payload=PAYLOAD | {"stream": False})).path == COMPLETIONS


def test_a_token_is_the_same_whenever_a_message_comes_again() -> None:
    assert parse(flat()).token == parse(flat()).token
    first, again = ({"request_token": "t", "retry_count": count} for count in (0, 1))
    assert parse(envelope(first)).token == parse(envelope(again)).token


def test_a_token_is_another_one_for_whatever_else_is_asked() -> None:
    asked = [
        flat(), flat(payload={"prompt": "b"}), flat(deadline=1), flat(id="b"), flat() + b"\n", envelope(),
        envelope({"request_token": "t"}), envelope({"request_token": "u"}),
        envelope({"request_token": "t"}, id="b"),
    ]  # fmt: skip
    assert len({parse(body).token for body in asked}) == len(asked)
