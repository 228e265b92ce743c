"""The lines of a batch's input file: each a record of the pipeline, or the reason why it is none.

A line holds a call in OpenAI's words. What it asks for must be what the pipeline does: nothing is left out silently.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from batch_assets.embeddings.schema import EMBED, GENERATE, Task
from batch_assets.requests.bodies import BodyRules
from batch_assets.settings.gateway import GatewayExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sources.base import Fault
from batch_assets.sources.json_values import parse_object
from batch_assets.sources.lines import BYTE_ORDER_MARK

EMBEDDINGS, CHAT, COMPLETIONS = "/v1/embeddings", "/v1/chat/completions", "/v1/completions"
ENDPOINTS: dict[str, Task] = {EMBEDDINGS: EMBED, CHAT: GENERATE, COMPLETIONS: GENERATE}
"""What may be asked for, and which task of a pipeline does it."""
MOST_LINES, MOST_BYTES = 50_000, 200 * 10**6
"""OpenAI's limits of a batch's input file."""
MOST_LINES_WITH_BLANK_ONES = 10**6
MOST_LINE_BYTES = 32 * 2**20
MOST_ERRORS = 100
"""So many of a file's errors are told."""
MODEL_MISMATCH, INVALID, UNSUPPORTED_INPUT, UNSUPPORTED_PARAMETER, URL_MISMATCH = (
    "model_mismatch",
    "invalid_request",
    "unsupported_input",
    "unsupported_parameter",
    "url_mismatch",
)
_NOT_JSON = ("not_json", "invalid_utf8")
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "stream": (False,),
    "n": (1,),
    "encoding_format": ("float", "base64"),
}
"""What may be said of any call, as it changes nothing of the answer's content."""
_IGNORED = ("user", "safety_identifier", "prompt_cache_key")


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line that is not blank: its number, from 1, its bytes, and the byte behind it. None: too long to be kept."""

    number: int
    data: bytes | None
    end: int


@dataclass(frozen=True, slots=True)
class Line:
    """What became of a line: a record of the pipeline as one line of JSON, or a code and a message."""

    number: int
    custom_id: str | None
    record: bytes | None = None
    is_base64: bool = False
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class FileError:
    """Why a whole file cannot be taken: as OpenAI's `errors.data` says it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


def read_lines(chunks: Iterable[bytes], number: int = 0, place: int = 0) -> Iterator[RawLine]:
    """The lines that are not blank, behind the line `number`, which ends at the byte `place`, where `chunks` begin."""
    rest: list[bytes] = []
    size = 0

    def line(data: bytes | None, end: int) -> Iterator[RawLine]:
        if data is None or not (data.isspace() or not data):
            yield RawLine(number, data, end)

    for chunk in chunks:
        parts = chunk.split(b"\n")
        for part in parts[:-1]:
            number, place = number + 1, place + len(part) + 1
            size += len(part)
            yield from line(b"".join([*rest, part]) if size <= MOST_LINE_BYTES else None, place)
            rest, size = [], 0
        size += len(parts[-1])
        place += len(parts[-1])
        rest = [*rest, parts[-1]] if size <= MOST_LINE_BYTES else []
    if size:
        number += 1
        yield from line(b"".join(rest) if size <= MOST_LINE_BYTES else None, place)


def model_of(line: bytes) -> str | None:
    """The model that a line names."""
    found = parse_object(line, MOST_LINE_BYTES, frozenset())
    body = found.get("body") if isinstance(found, dict) else None
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) else None


class LineReader:
    """Reads the lines of one batch for the pipeline that is to do it."""

    def __init__(self, settings: PipelineSettings, endpoint: str) -> None:
        self._settings = settings
        self._endpoint = endpoint
        self._task: Task = settings.task or EMBED
        self._bodies = BodyRules(settings)
        assert settings.source.requests is not None, settings.name
        self._most_bytes = settings.source.requests.max_body_bytes
        gateway = settings.executor if isinstance(settings.executor, GatewayExecutorSettings) else None
        self._system = None if gateway is None else gateway.system_prompt
        self._options: dict[str, Any] = {} if gateway is None else dict(gateway.body)
        if settings.model.dimensions is not None:
            self._options["dimensions"] = settings.model.dimensions

    def read(self, raw: RawLine) -> Line | FileError:
        """The line as a record, or with what is wrong with it; a FileError where the whole file cannot be taken."""
        if raw.data is None:
            told = f"the line is longer than {MOST_LINE_BYTES:,} bytes"
            return Line(raw.number, None, code=INVALID, message=told)
        data = raw.data.removeprefix(BYTE_ORDER_MARK) if raw.number == 1 else raw.data
        found = parse_object(data, MOST_LINE_BYTES, frozenset())
        if isinstance(found, Fault):
            if found.code in _NOT_JSON:
                return FileError("invalid_json_line", f"the line is no JSON: {found.message}", raw.number)
            # Half a character: JSON, with an id maybe, and no text.
            return Line(raw.number, _id_of(data), code=INVALID, message=f"{found.code}: {found.message}")
        custom_id = found.get("custom_id")
        if not isinstance(custom_id, str) or not custom_id or "\0" in custom_id:
            told = f"custom_id: {_shown(custom_id)}: write a string, other than every other line's"
            return Line(raw.number, None, code=INVALID, message=told)
        try:
            record, is_base64 = self._call(found)
        except _WrongLine as error:
            return Line(raw.number, custom_id, code=error.code, message=str(error))
        return Line(raw.number, custom_id, record, is_base64)

    def _call(self, found: Mapping[str, Any]) -> tuple[bytes, bool]:
        """The record that a call is about, and whether its vector is to come as base64. Raises _WrongLine."""
        body = found.get("body")
        if found.get("method", "POST") != "POST":
            raise _WrongLine(INVALID, f"method: {_shown(found.get('method'))}: write POST")
        if found.get("url") != self._endpoint:
            raise _WrongLine(
                URL_MISMATCH, f"url: {_shown(found.get('url'))}: the batch is for {self._endpoint}"
            )
        if not isinstance(body, dict):
            raise _WrongLine(INVALID, f"body: {_shown(body)}: write the call's JSON object")
        self._demand_model(body.get("model"))
        named = {EMBEDDINGS: "input", CHAT: "messages", COMPLETIONS: "prompt"}[self._endpoint]
        for name, value in body.items():
            if name not in ("model", named):
                self._demand_option(name, value)
        if named not in body:
            raise _WrongLine(INVALID, f"{named}: is missing from the body")
        text = self._message(body[named]) if named == "messages" else _text(named, body[named])
        columns = self._settings.source.text_columns
        if len(columns) != 1 or self._settings.source.images:
            raise _WrongLine(
                UNSUPPORTED_INPUT,
                f"{named}: a record of pipeline {self._settings.name} has more than a text; send its columns to "
                "POST /job",
            )
        record = self._bodies.read_object(orjson.dumps({columns[0]: text}))
        if isinstance(record, Fault):
            raise _WrongLine(INVALID, f"{record.code}: {record.message}")
        if len(record) > self._most_bytes:
            raise _WrongLine(
                INVALID, f"{named}: {len(record):,} bytes; max_body_bytes is {self._most_bytes:,}"
            )
        return record, body.get("encoding_format") == "base64"

    def _demand_model(self, model: Any) -> None:
        settings = self._settings
        if ENDPOINTS[self._endpoint] != self._task:
            raise _WrongLine(
                MODEL_MISMATCH,
                f"model: {_shown(model)}: no pipeline of that name, or with that model, answers {self._endpoint}",
            )
        if model not in (settings.name, settings.model_name):
            raise _WrongLine(
                MODEL_MISMATCH,
                f"model: {_shown(model)}: this batch is for pipeline {settings.name} ({settings.model_name})",
            )

    def _demand_option(self, name: str, value: Any) -> None:
        if name in _IGNORED or value is None or value in _HARMLESS.get(name, ()):
            return
        if name in self._options and self._options[name] == value:
            return
        has = f"has {_shown(self._options[name])}" if name in self._options else "does not set it"
        raise _WrongLine(
            UNSUPPORTED_PARAMETER, f"{name}: {_shown(value)}: pipeline {self._settings.name} {has}"
        )

    def _message(self, messages: Any) -> str:
        """What the user says, in a conversation that has nothing else but the pipeline's own system prompt."""
        if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
            raise _WrongLine(INVALID, f"messages: {_shown(messages)}: write a list of messages")
        asked = [one for one in messages if one.get("role") not in ("system", "developer")]
        told = [one.get("content") for one in messages if one.get("role") in ("system", "developer")]
        if told and told != [self._system]:
            raise _WrongLine(
                UNSUPPORTED_PARAMETER,
                f"messages: a system message {_shown(told[0])}: pipeline {self._settings.name} has "
                f"{_shown(self._system)}",
            )
        if len(asked) != 1 or asked[0].get("role") != "user":
            raise _WrongLine(UNSUPPORTED_INPUT, "messages: send one message of the user")
        content = asked[0].get("content")
        if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
            content = content[0].get("text") if content[0].get("type") == "text" else content
        return _text("content", content)


class UniqueIds:
    """Tells ids that occur twice, at 16 bytes each."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def is_new(self, custom_id: str) -> bool:
        """Whether it did not occur before."""
        digest = hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
        before = len(self._seen)
        self._seen.add(digest)
        return len(self._seen) > before


class _WrongLine(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _text(name: str, value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise _WrongLine(UNSUPPORTED_INPUT, f"{name}: {_shown(value)}: send one string; a line is one record")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"


def _id_of(line: bytes) -> str | None:
    """The custom_id of a line that is JSON to Python, and holds half characters."""
    found = json.loads(line)
    custom_id = found.get("custom_id") if isinstance(found, dict) else None
    if not isinstance(custom_id, str) or "\0" in custom_id:
        return None
    return custom_id if custom_id.isascii() else None
