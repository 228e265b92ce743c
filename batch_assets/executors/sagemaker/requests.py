"""Records as input objects: lines with the record's id riding along, cut into objects of neighbours.

The id never reaches the container: a filter keeps it back, and the service joins it to the
answer. What comes back is read in `answers.py` and `results.py`.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from batch_assets.executors.aws.requests import record_id, wanted_texts
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.sagemaker import SageMakerExecutorSettings
from batch_assets.sources.base import Records

MEGABYTE = 10**6
"""The service does not say whether its MB have 10**6 or 2**20 bytes: the smaller ones are safe."""

CUT_AT_ONCE = 128
"""A failed object is cut into so many: of 12,500 records two more jobs find the one that breaks it."""

MOST_OBJECTS = 10_000
"""Of one job, about: more are only many small requests to S3."""

ID, INPUT, OUTPUT = "id", "input", "SageMakerOutput"
CSV = "text/csv"
# Legal within JSON strings, and line ends to many a container's own way of splitting.
_LINE_ENDS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))


@dataclass(frozen=True)
class Lines:
    """How a text becomes a line: `prompt` before it, in the content type that the container takes."""

    prompt: str
    content_type: str
    input_field: str
    most_bytes: int

    @classmethod
    def of(cls, model: ModelSettings, options: SageMakerExecutorSettings) -> "Lines":
        return cls(
            prompt=model.prompt or "",
            content_type=options.content_type,
            input_field=options.input_field,
            most_bytes=options.max_payload_mb * MEGABYTE,
        )

    def line(self, ordinal: int, text: str) -> bytes:
        """The record's line in an input object, with its end."""
        text = self.prompt + text
        if self.content_type == CSV:
            out = io.StringIO()
            row = [record_id(ordinal), " ".join(text.splitlines())]
            csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(row)
            return out.getvalue().encode()
        record = {ID: record_id(ordinal), INPUT: {self.input_field: text}}
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        for raw, escaped in _LINE_ENDS:
            line = line.replace(raw, escaped)
        return line


def data_processing(content_type: str) -> dict[str, str]:
    """What the service does with a line on its way: JSONPath, at most 63 characters each."""
    if content_type == CSV:
        # An answer has as many columns as it likes: they are appended, and none is filtered out.
        return {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$"}
    return {"InputFilter": f"$.{INPUT}", "JoinSource": "Input", "OutputFilter": f"$['{ID}','{OUTPUT}']"}


def suffix(content_type: str) -> str:
    """How the name of an input object ends."""
    return ".csv" if content_type == CSV else ".jsonl"


@dataclass
class InputObject:
    """One input object: the lines of neighbouring records."""

    lines: list[bytes] = field(default_factory=list)
    ordinals: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Cut:
    """Where objects end: `objects` of about equal size, and for narrowed records smaller ones.

    `expected` is how many records there are, about, and `first_size` how many an object had of the
    shard's first job. `narrowed` are the records whose object failed, with how often.
    """

    objects: int
    expected: int
    first_size: int
    narrowed: Mapping[int, int]

    def place(self, number: int, ordinal: int) -> tuple[int, int]:
        """What two neighbours of one object have alike, `number` being the record's place among all."""
        level = self.narrowed.get(ordinal, 0)
        if not level:
            return 0, number * self.objects // max(self.expected, 1)
        return level, 0

    def most(self, level: int) -> int:
        """Records of an object whose records were in so many failed ones."""
        if not level:
            return self.expected
        size = -(-self.first_size // CUT_AT_ONCE**level)
        return max(size, -(-self.expected // MOST_OBJECTS))


def cut_records(
    batches: Iterable[Records],
    lines: Lines,
    cut: Cut,
    ordinals: Sequence[int] | None,
    too_long: list[tuple[int, str]],
) -> Iterator[InputObject]:
    """The records (`ordinals` only, where those are given) as objects, one after the other. Streams.

    Records that no call of the container can hold are left out and put to `too_long`, with the reason.
    """
    current, place = InputObject(), (0, 0)
    for number, (ordinal, text) in enumerate(wanted_texts(batches, ordinals)):
        # Of the first job it is not known how many records are rejected: they keep their places.
        own = cut.place(ordinal if ordinals is None else number, ordinal)
        line = lines.line(ordinal, text)
        if len(line) > lines.most_bytes:
            too_long.append((ordinal, _too_long(len(line), lines)))
            continue
        if current.lines and (own != place or len(current.lines) >= cut.most(own[0])):
            yield current
            current = InputObject()
        place = own
        current.lines.append(line)
        current.ordinals.append(ordinal)
    if current.lines:
        yield current


def _too_long(size: int, lines: Lines) -> str:
    return (
        f"the record makes {size:,} bytes, and executor.max_payload_mb lets {lines.most_bytes:,} into a call of the "
        "container; raise it (to 100 at most), or shorten the text"
    )
