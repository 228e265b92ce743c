"""Which text of a record is embedded: one column, or a template over several."""

import math
import string
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from batch_assets.errors import ConfigurationError
from batch_assets.sources.base import Fault
from batch_assets.sources.invisible import is_visible, nothing_visible
from batch_assets.sources.json_values import json_text

_MISSING = object()


class TextRule:
    """Makes the text of a record, or says why it has none. `columns` are the ones it looks at.

    A column's text must be a string. In a template, numbers and booleans are written as JSON
    writes them, arrays and objects too; a column that is missing, null or NaN leaves no text.
    """

    def __init__(self, column: str | None, template: str | None) -> None:
        self._parts = [] if template is None else parse_template(template)
        if template is None:
            self.columns = [column or "text"]
        else:
            self.columns = list(dict.fromkeys(name for _, name in self._parts if name is not None))

    def __call__(self, record: Mapping[str, Any]) -> str | Fault:
        if not self._parts:
            return check_text(record.get(self.columns[0], _MISSING), self.columns[0])
        pieces: list[str] = []
        for literal, name in self._parts:
            pieces.append(literal)
            if name is not None:
                value = record.get(name)
                if value is None or (isinstance(value, float) and not math.isfinite(value)):
                    what = "missing" if name not in record else "null" if value is None else "no number"
                    return Fault("no_text", f"column {name!r} of the template is {what}")
                try:
                    pieces.append(value if isinstance(value, str) else json_text(value))
                except RecursionError:
                    return Fault(
                        "text_not_string", f"column {name!r} is nested too deeply to be written as text"
                    )
        text = "".join(pieces)
        return text if is_visible(text) else nothing_visible(text, "the text")


def check_text(value: Any, column: str) -> str | Fault:
    """The text in a column's value, or what is wrong with it."""
    if type(value) is str:
        return value if is_visible(value) else nothing_visible(value, f"column {column!r}")
    if value is _MISSING:
        return Fault("no_text", f"there is no column {column!r}")
    if value is None:
        return Fault("no_text", f"column {column!r} is null")
    return _not_string(column, kind_of(value))


def kind_of(value: Any) -> str:
    """What a value of JSON that is no string is, in words."""
    kinds = {bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)


def not_a_string(data_type: pa.DataType, column: str) -> Fault:
    """The fault of a value that a Parquet column declares to be something else than text."""
    if pa.types.is_boolean(data_type):
        return _not_string(column, "a boolean")
    if pa.types.is_struct(data_type):
        return _not_string(column, "an object")
    number = pa.types.is_integer(data_type) or pa.types.is_floating(data_type)
    return _not_string(column, "a number" if number else f"of type {data_type}")


def _not_string(column: str, what: str) -> Fault:
    return Fault("text_not_string", f"column {column!r} is {what}, not a string")


def parse_template(template: str) -> list[tuple[str, str | None]]:
    """Split a template into (literal, column) pairs. Raises ConfigurationError where it is none.

    Braces hold a column's plain name; `{{` and `}}` stand for braces.
    """
    field = f"source.text_template: {template!r}"
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(f"{field}: {error}; write {{{{ or }}}} for a brace") from None
    for _, name, form, conversion in parsed:
        if name == "" or form or conversion:
            raise ConfigurationError(
                f'{field}: each pair of braces holds a column\'s name only, as "{{title}}"'
            )
    if not any(name for _, name, _, _ in parsed):
        raise ConfigurationError(f'{field}: names no column; write for example "{{title}}\\n{{body}}"')
    return [(literal, name) for literal, name, _, _ in parsed]
