"""What a leftover is, and when its time is up: the words that finding and removing share."""

import datetime
from dataclasses import dataclass
from enum import StrEnum

from batch_assets.settings.retention import RetentionSettings
from batch_assets.storage import FileInfo, Storage

UNNAMED_SECONDS = 2 * 86_400.0
"""What nothing names may be in the making, by whoever: it counts as left over no earlier."""


class Kind(StrEnum):
    """The kinds of leftovers; each has its retention time of the same name."""

    REQUESTS = "requests"
    RESULTS = "results"
    SPOOLS = "spools"
    SUPERSEDED = "superseded"
    MERGED = "merged"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that may go. `since` is when it was needed last (unix seconds)."""

    kind: Kind
    storage: Storage
    path: str
    bytes: int
    since: float


@dataclass(frozen=True)
class Times:
    """Until when files of each kind must have been needed last to be due: those of the others stay for ever."""

    until: dict[Kind, float]

    @classmethod
    def of(cls, retention: RetentionSettings, now: float) -> "Times":
        ages: dict[Kind, datetime.timedelta | None] = {kind: getattr(retention, kind.value) for kind in Kind}
        return cls({kind: now - age.total_seconds() for kind, age in ages.items() if age is not None})

    @property
    def latest(self) -> float:
        return max(self.until.values(), default=float("-inf"))

    def asks(self, *kinds: Kind) -> bool:
        return any(kind in self.until for kind in kinds)

    def due(self, found: Leftover) -> bool:
        return found.since <= self.until.get(found.kind, float("-inf"))


def modified(info: FileInfo) -> float:
    """When the file was written last; where nobody knows, it counts as new for ever."""
    return float("inf") if info.modified is None else info.modified


def leftover(kind: Kind, storage: Storage, info: FileInfo, since: float) -> Leftover:
    """A file that was not needed since then, and not before it was written."""
    return Leftover(kind, storage, info.path, info.size, max(since, modified(info)))
