"""The part of JSONPath that DataProcessing's filters know: $, .name, ['a','b'], [0,-1], [1:], [*].

As SageMaker's page on associating predictions with input records tells it: several names
give an object of them, several indices and slices a list.
"""

import functools
import re
from typing import Any

_STEP = re.compile(
    r"\.(?P<name>[^.\[\]'\"*]+)|\.?\[(?P<inside>(?:'[^']*'|\"[^\"]*\"|[^\]'\"])*)\]|(?P<all>\.\*)"
)
_NAMES = re.compile(r"\s*(?:'([^']*)'|\"([^\"]*)\")\s*")
_SLICE = re.compile(r"\s*(-?\d*)\s*:\s*(-?\d*)\s*")
_INDEX = re.compile(r"\s*-?\d+\s*")

Step = tuple[str, tuple[Any, ...]]


class PathInvalid(ValueError):
    """A filter that is no path, or finds nothing in a value."""


@functools.cache
def parse(path: str) -> tuple[Step, ...]:
    """The steps of a path; raises PathInvalid."""
    if not path.startswith("$"):
        raise PathInvalid(f"{path!r} does not begin with $")
    steps: list[Step] = []
    at = 1
    while at < len(path):
        found = _STEP.match(path, at)
        if not found:
            raise PathInvalid(f"{path!r} cannot be read from {path[at:]!r} on")
        at = found.end()
        if found["name"] is not None:
            steps.append(("names", (found["name"].strip(),)))
        else:
            steps.append(_inside(found["inside"] if found["inside"] is not None else "*", path))
    return tuple(steps)


def _inside(text: str, path: str) -> Step:
    if text.strip() == "*":
        return "all", ()
    if found := _SLICE.fullmatch(text):
        return "slice", tuple(int(end) if end else None for end in found.groups())
    if _NAMES.match(text):
        names = [single or double for single, double in _NAMES.findall(text)]
        return "names", tuple(names)
    parts = text.split(",")
    if all(_INDEX.fullmatch(part) for part in parts):
        return "indices", tuple(int(part) for part in parts)
    raise PathInvalid(f"{path!r} cannot be read: [{text}]")


def find(path: str, value: Any) -> Any:
    """What the path finds in a value; raises PathInvalid where it finds nothing."""
    for step, details in parse(path):
        try:
            value = _take(step, details, value)
        except (KeyError, IndexError, TypeError) as error:
            raise PathInvalid(f"{path!r} finds nothing in the record") from error
    return value


def _take(step: str, details: tuple[Any, ...], value: Any) -> Any:
    if step == "all":
        return list(value.values()) if isinstance(value, dict) else list(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if step == "slice":
        if not isinstance(value, list):
            raise TypeError("a slice of what is no list")
        return value[slice(*details)]  # pyright: ignore[reportUnknownVariableType]
    wanted = dict if step == "names" else list
    if not isinstance(value, wanted):
        raise TypeError(f"no {wanted.__name__}")
    if len(details) == 1:
        return value[details[0]]  # pyright: ignore[reportUnknownVariableType, reportCallIssue, reportArgumentType]
    if step == "names":
        return {name: value[name] for name in details}  # pyright: ignore[reportCallIssue, reportArgumentType, reportUnknownVariableType]
    return [value[index] for index in details]  # pyright: ignore[reportUnknownVariableType]
