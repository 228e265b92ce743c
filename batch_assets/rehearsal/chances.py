"""What every part of a scenario is made of, and what befalls the events of every service."""

from typing import Annotated

from pydantic import Field

from batch_assets.settings.base import Settings

Chance = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[tuple[float, float], Field(description="From and to, drawn evenly.")]


class Events(Settings):
    """What befalls state-change events: AWS delivers most of them by best effort."""

    dropped: Chance = 0.0
    doubled: Chance = 0.0
    late: Chance = 0.0
    late_seconds: Seconds = (60, 1800)
    swapped: Chance = Field(default=0.0, description="Comes after the job's next event.")
