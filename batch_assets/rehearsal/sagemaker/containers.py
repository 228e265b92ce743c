"""What stands for a model's container: it takes lines, and answers each in the form of its kind.

The text of a line is its only string field (`{"inputs": "text"}`), the string that it is, or
a CSV row's columns. A container refuses a record that it cannot read, or that scenario or
marker say; a refused record fails its object.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from batch_assets.rehearsal.books import digest_of
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.sagemaker.faults import Kind
from batch_assets.rehearsal.vectors import embed

JSON_TYPES = ("application/json", "application/jsonlines", "application/jsonl")
PLACEHOLDER = "ERROR: the record could not be processed"


class Refused(Exception):
    """The container answers 400, for this reason."""


@dataclass(frozen=True, slots=True)
class Container:
    """A model as one job sees it. `content_type` is what it is sent, `accept` what it answers in."""

    scenario: Scenario
    kind: Kind
    content_type: str
    accept: str

    def text_of(self, line: str) -> str:
        """The text that a line holds; raises Refused."""
        if self.content_type == "text/csv":
            return " ".join(" ".join(row) for row in csv.reader([line]))
        if self.content_type not in JSON_TYPES:
            return line
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise Refused(f"no JSON: {error}") from error
        if isinstance(value, str):
            return value
        texts = [item for item in value.values() if isinstance(item, str)] if isinstance(value, dict) else []
        if len(texts) != 1:
            raise Refused("one string field is needed, such as inputs")
        return texts[0]

    def is_bad(self, text: str) -> bool:
        """Whether the model cannot take this text: always the same ones."""
        if self.scenario.transform.marker in text:
            return True
        return int.from_bytes(digest_of(text)[:6]) / 2**48 < self.scenario.records.refused

    def answers(self, texts: Sequence[str]) -> list[str]:
        """A line for each text; raises Refused."""
        bad = [self.is_bad(text) for text in texts]
        if any(bad) and self.kind != "placeholder":
            raise Refused("the model could not process a record")
        width = self.scenario.transform.width
        vectors = embed(list(texts), max(1, width // 2) if self.kind == "narrow" else width) if texts else []
        return [
            self._line(PLACEHOLDER if is_bad else self._shaped(text, vector))
            for text, vector, is_bad in zip(texts, vectors, bad, strict=True)
        ]

    def _shaped(self, text: str, vector: Any) -> Any:
        words = text.split() or [""]
        shapes: dict[Kind, Any] = {
            "tokens": lambda: [vector] * (len(words) + 2),  # with the tokens that begin and end a text
            "embedding": lambda: {"embedding": vector},
            "nested": lambda: [vector],
            "text": lambda: {"generated_text": f"It says: {' '.join(words[:20])}"},
            "text_list": lambda: [{"generated_text": f"It says: {' '.join(words[:20])}"}],
        }
        return shapes.get(self.kind, lambda: vector)()

    def _line(self, answer: Any) -> str:
        content = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
        if self.accept != "text/csv":
            return content.decode()
        value = orjson.loads(content)
        row = value if isinstance(value, list) and all(isinstance(item, float) for item in value) else [value]
        return to_csv(
            [item if isinstance(item, str | float) else orjson.dumps(item).decode() for item in row]
        )


def to_csv(row: Sequence[Any]) -> str:
    """One line of CSV, without its end."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(row)
    return out.getvalue()
