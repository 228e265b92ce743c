"""How long what a pipeline no longer needs is kept."""

import datetime
import re
from typing import Annotated, Any

import pydantic
from pydantic import Field

from batch_assets.settings.base import Settings
from batch_assets.settings.timing import Schedule

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _parse_age(value: Any) -> Any:
    """Turn `30m`, `12h`, `7d` or `4w` into a timedelta. A bare number says no unit: 7 would mean seven seconds."""
    if isinstance(value, datetime.timedelta):
        return value
    match = re.fullmatch(r"\s*([0-9]{1,5})\s*([mhdw])\s*", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write an age such as 30m, 12h, 7d or 4w")
    return datetime.timedelta(**{_UNITS[match[2]]: int(match[1])})


def _write_age(age: datetime.timedelta) -> str:
    return f"{int(age.total_seconds() // 60)}m"


Age = Annotated[
    datetime.timedelta,
    pydantic.BeforeValidator(_parse_age, json_schema_input_type=str),
    pydantic.PlainSerializer(_write_age, return_type=str),
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
