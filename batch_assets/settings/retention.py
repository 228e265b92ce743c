"""How long what a pipeline no longer needs is kept."""

import datetime
import re
from typing import Annotated, Any

import pydantic
from pydantic import Field

from batch_assets.settings.base import Settings
from batch_assets.settings.timing import Schedule

_UNITS = {
    "w": datetime.timedelta(weeks=1),
    "d": datetime.timedelta(days=1),
    "h": datetime.timedelta(hours=1),
    "m": datetime.timedelta(minutes=1),
}
_LONGEST = datetime.timedelta(weeks=5200)


def _parse_age(value: Any) -> Any:
    """Turn `30m`, `12h`, `7d` or `4w` into a timedelta. A bare number says no unit: 7 would mean seven seconds."""
    if isinstance(value, datetime.timedelta):
        return value
    match = re.fullmatch(r"\s*([0-9]{1,8})\s*([mhdw])\s*", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write an age such as 30m, 12h, 7d or 4w")
    age = int(match[1]) * _UNITS[match[2]]
    if age > _LONGEST:
        raise ValueError("it is more than 5200w; leave the field out to keep these for ever")
    return age


def write_age(age: datetime.timedelta) -> str:
    """As a person would write it, so that it is read back: pipelines are handed on as JSON."""
    unit = next(unit for unit, length in _UNITS.items() if age % length == datetime.timedelta())
    return f"{age // _UNITS[unit]}{unit}"


Age = Annotated[
    datetime.timedelta,
    pydantic.BeforeValidator(_parse_age, json_schema_input_type=str),
    pydantic.PlainSerializer(write_age, return_type=str),
]


class RetentionSettings(Settings):
    """What `cleanup` removes, by age. What is not named is kept; so is everything of shards that are not settled."""

    requests: Age | None = Field(
        default=None, description="Request files of collected shards, from their commit on."
    )
    results: Age | None = Field(
        default=None, description="Raw service output of collected shards, and rows kept between attempts."
    )
    spools: Age | None = Field(
        default=None, description="Spooled input, from the day on which every shard of its file is collected."
    )
    superseded: Age | None = Field(
        default=None, description="Shards that left the merge, and data files that no commit names."
    )
    merged: Age | None = Field(
        default=None, description="Merged versions before the published one, from the day they were replaced."
    )
    schedule: Schedule | None = Field(
        default=None,
        description="When cleanup runs by itself: hour, day, week, month, or cron; by default only when asked.",
    )
