"""When a pipeline starts by itself, and when it is merged."""

import datetime
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from batch_assets.settings.base import Settings

CRON = {
    "minute": "* * * * *",
    "hour": "0 * * * *",
    "day": "0 0 * * *",
    "week": "0 0 * * 0",
    "month": "0 0 1 * *",
    "year": "0 0 1 1 *",
}


def cron_of(schedule: str) -> str:
    """The cron expression of `minute`, `hour`, …, or of itself."""
    return CRON.get(schedule, schedule)


# A cron expression's fields, with the least and the most that each may say, and its names from the least on.
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


_LONGEST_MONTHS = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days; the month's number is the place


def _schedule(value: str) -> str:
    written = " ".join(value.split())
    if written in CRON:
        return written
    fields = written.split(" ")
    if len(fields) != len(_FIELDS):
        raise ValueError(f"write one of {', '.join(CRON)}, or a cron expression of five fields")
    allowed: list[set[int]] = []
    for field, (name, least, most, names) in zip(fields, _FIELDS, strict=True):
        parts = [_values(part, least, most, names) for part in field.lower().split(",")]
        if not all(parts):
            named = f" or {names[0]} to {names[-1]}" if names else ""
            raise ValueError(
                f"its {name}, {field!r}, is none: write *, */n, numbers from {least} to {most}{named}, or ranges from "
                "the lower to the higher, with commas between; a step n must fit into what it divides"
            )
        allowed.append({value for part in parts for value in part})
    _, _, days, months, _ = allowed
    # Where a day of the week is named, too, a cron expression means either of the two.
    if fields[4] == "*" and min(days) > max(_LONGEST_MONTHS[month] for month in months):
        raise ValueError(f"the months {fields[3]!r} have no day {fields[2]!r}, so it would never come")
    return written


def _values(part: str, least: int, most: int, names: tuple[str, ...]) -> range:
    """What `*`, `7` or `1-5`, each also with `/step`, stands for; nothing where it is none of these."""
    match = re.fullmatch(r"(?:\*|([0-9]+|[a-z]+)(?:-([0-9]+|[a-z]+))?)(?:/([1-9][0-9]*))?", part)
    if match is None:
        return range(0)
    first, last, step = match.groups()
    ends = [
        least + names.index(end) if end in names else int(end) if end.isdigit() else -1
        for end in (first, last)
        if end is not None
    ]
    if first is None or (last is None and step is not None):
        # Sunday is 0 as well as 7, and counts once.
        ends = [*(ends or [least]), least + len(names) - 1 if names else most]
    if not all(least <= end <= most for end in ends) or int(step or 1) > max(ends[-1] - ends[0], 1):
        return range(0)
    return range(ends[0], ends[-1] + 1, int(step or 1))


Schedule = Annotated[str, pydantic.AfterValidator(_schedule)]


def _time(value: Any) -> Any:
    if isinstance(value, (int, float)):  # YAML reads 20:01 as a number of base 60
        raise ValueError('write the time in quotes, such as "06:00"')
    if isinstance(value, str):
        kind = datetime.datetime if "-" in value.strip()[:5] else datetime.time
        try:
            value = kind.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(
                'write a moment such as 2026-11-21T06:00:00Z, or a time of day such as "06:00"'
            ) from None
    naive = isinstance(value, datetime.datetime) and value.tzinfo is None
    if naive or (isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)):
        raise ValueError(
            'write a moment with its zone, such as 2026-11-21T06:00:00Z, or a time of day such as "06:00"'
        )
    return value


class MergeAtFraction(Settings):
    """Merge once so large a share of the records' shards is collected, and once more when all are."""

    fraction: float = Field(gt=0, le=1, description="Share of the planned records in collected shards.")


class MergeAtTime(Settings):
    """Merge what there is at a time, and once more when all is collected."""

    at: Annotated[pydantic.AwareDatetime | datetime.time, pydantic.BeforeValidator(_time)] = Field(
        description='A moment with its zone (2026-11-21T06:00:00Z), or a time of each day in UTC ("06:00").'
    )


def _kind(value: Any) -> str | None:
    """Which of the forms is meant; None for none of them."""
    for name in ("fraction", "at"):
        if hasattr(value, name) or (isinstance(value, Mapping) and name in value):
            return name
    return "named" if isinstance(value, str) and value in ("all", "complete", "any") else None


MergeWhen = Annotated[
    Annotated[Literal["all", "complete", "any"], pydantic.Tag("named")]
    | Annotated[MergeAtFraction, pydantic.Tag("fraction")]
    | Annotated[MergeAtTime, pydantic.Tag("at")],
    pydantic.Discriminator(
        _kind,
        custom_error_type="merge_when",
        custom_error_message='write all, any, {fraction: 0.99} or {at: "06:00"}',
    ),
]
