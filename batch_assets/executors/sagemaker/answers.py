"""Where in a container's answer the result is: a vector of some shape, or a text.

SageMaker passes on whatever a container says, and containers differ: a bare list, one within
another, an object with a field of one name or the other. Which record an answer is of is read in
`results.py`.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from batch_assets.embeddings.schema import EMBED, Task
from batch_assets.executors.aws.answers import Answer, BadAnswer, is_number, read_count, read_numbers

VECTOR_FIELDS = (
    "embedding", "embeddings", "vector", "vectors", "sentence_embedding", "sentence_embeddings", "pooled_output",
    "predictions", "prediction", "outputs", "output", "results", "result", "data", "body",
)  # fmt: skip
TEXT_FIELDS = (
    "generated_text", "response", "text", "answer", "completion", "content", "message", "predictions", "prediction",
    "outputs", "output", "results", "result", "choices", "data", "body",
)  # fmt: skip
_INPUT_TOKENS = ("prompt_tokens", "input_tokens", "inputTokens", "inputTextTokenCount", "token_count")
_OUTPUT_TOKENS = ("completion_tokens", "output_tokens", "outputTokens")
_SAMPLE_CHARACTERS = 200
# The id, and the text as it was sent: quoted or not, as the service likes to write it again.
_CSV_LINE = re.compile(rb'"?(?P<id>\d{11})"?,(?:"(?:[^"]|"")*"|[^",]*),(?P<answer>.*)', re.DOTALL)


class TokenLevel(BadAnswer):
    """A matrix where one vector is expected: a vector for each token, not pooled."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(f"the answer has {rows:,} rows of {width:,} numbers, not one vector")


@dataclass(frozen=True)
class AnswerFormat:
    """What one pipeline expects: a `task`'s results, looked for or in `output_field` (a.b: b within a).

    `csv`: result lines are CSV. `dimensions` and `normalize` are those of `ModelSettings`;
    `width` is how wide the pipeline's vectors are, if that is known.
    """

    task: Task = EMBED
    csv: bool = False
    output_field: str | None = None
    dimensions: int | None = None
    normalize: bool = True
    width: int | None = None

    def read(self, output: Any) -> Answer:
        """The result in an answer: plain JSON, or simdjson's view of it. Raises BadAnswer."""
        value = output
        for name in self.output_field.split(".") if self.output_field else ():
            value = _member(value, name)
        if self.task == EMBED:
            return Answer(_vector(value), "", *_tokens(output))
        return Answer(None, _text(value), *_tokens(output))


def sample(output: Any) -> str:
    """The beginning of an answer, for a person."""
    content: bytes = output.mini if hasattr(output, "mini") else json.dumps(output, default=str).encode()
    text = content.decode(errors="replace")
    return text if len(text) <= _SAMPLE_CHARACTERS else text[:_SAMPLE_CHARACTERS] + "…"


def is_object(value: Any) -> bool:
    return hasattr(value, "keys")


def _is_array(value: Any) -> bool:
    return isinstance(value, list) or hasattr(value, "as_buffer")


def _only(value: Any) -> Any:
    """What is in arrays of one element."""
    while _is_array(value) and len(value) == 1 and (is_object(value[0]) or _is_array(value[0])):
        value = value[0]
    return value


def _member(value: Any, name: str) -> Any:
    value = _only(value)
    if not is_object(value) or name not in list(value):
        raise BadAnswer(f"there is no field {name!r} in the answer {sample(value)}")
    return value[name]


def _named(value: Any, names: Sequence[str], what: str) -> Any:
    """The field of an object that is likeliest to hold the result; an only one is."""
    fields = list(value)
    found = next((name for name in names if name in fields), fields[0] if len(fields) == 1 else None)
    if found is None:
        raise BadAnswer(f"no {what} is found in the answer {sample(value)}")
    return value[found]


def _vector(value: Any) -> memoryview:
    found = value
    while is_object(found) or (_is_array(found) and len(found) and not is_number(found[0])):
        if is_object(found):
            found = _named(found, VECTOR_FIELDS, "vector")
        elif len(found) > 1 and _is_array(found[0]):
            raise TokenLevel(len(found), len(found[0]))
        elif len(found) > 1:
            break
        else:
            found = found[0]
    if not _is_array(found):
        raise BadAnswer(f"no vector is found in the answer {sample(found)}")
    return _numbers(found)


def _numbers(value: Any) -> memoryview:
    vector = read_numbers(value)
    if vector is None or not vector.nbytes == 8 * len(value) > 0:  # simdjson flattens what is nested
        raise BadAnswer(f"the answer is no array of numbers: {sample(value)}")
    return vector


def _text(value: Any) -> str:
    found = value
    while not isinstance(found, str):
        if is_object(found):
            found = _named(found, TEXT_FIELDS, "text")
        elif _is_array(found) and len(found) == 1:
            found = found[0]
        else:
            raise BadAnswer(f"no text is found in the answer {sample(found)}")
    return found.encode(errors="replace").decode()  # a lone surrogate is no text


def _tokens(output: Any) -> tuple[int, int]:
    """Input and output tokens, where the answer tells them."""
    output = _only(output)
    if not is_object(output):
        return 0, 0
    usage = output["usage"] if "usage" in list(output) else output
    if not is_object(usage):
        return 0, 0
    fields = list(usage)

    def count(names: tuple[str, ...]) -> int:
        return read_count(next((usage[name] for name in names if name in fields), 0))

    return count(_INPUT_TOKENS), count(_OUTPUT_TOKENS)


def csv_parts(line: bytes) -> tuple[str, bytes] | None:
    """The record's id and the answer's columns in a line of CSV; None for what is none."""
    found = _CSV_LINE.fullmatch(line.rstrip(b"\r\n"))
    return None if found is None else (found["id"].decode(), found["answer"])


def csv_answer(columns: bytes, task: Task) -> Any:
    """What a container's columns say, as if it were JSON. Raises BadAnswer for what no vector can be.

    Numbers are a list. A single column may hold JSON, and is otherwise the text itself; text with
    bare commas is one text.
    """
    text = columns.decode(errors="replace")
    cells = next(_rows(text), [])
    whole = cells[0] if len(cells) == 1 else text  # JSON, and texts, that nobody has quoted have commas
    if whole[:1] in ("[", "{"):
        try:
            return json.loads(whole)
        except (ValueError, RecursionError):
            pass
    if task != EMBED:
        return whole
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        raise BadAnswer(f"the answer is no row of numbers: {text[:_SAMPLE_CHARACTERS]}") from None


def _rows(text: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader([text])
    except csv.Error as error:
        raise BadAnswer(f"the answer is no CSV: {error}") from None
