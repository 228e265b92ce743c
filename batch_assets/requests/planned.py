"""Which windows are planned, and which shard each of their requests is in.

A plan under the output root is the truth of it; what stands here spares reading the plans. Sealing is `windows.py`'s.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets import paths
from batch_assets.requests.database import RequestsDatabase
from batch_assets.storage import FileInfo, Storage


@dataclass(frozen=True)
class Segment:
    """Rows of a window that are in a shard: from `first_row` up to `last_row`, exclusive."""

    window: str
    first_row: int
    last_row: int
    shard: str


@dataclass(frozen=True)
class SealedWindow:
    """A window whose file is whole: its name, and how many bytes it was sealed with."""

    name: str
    bytes: int


def files_of(sealed: Sequence[SealedWindow], root: Storage) -> tuple[list[FileInfo], dict[str, str]]:
    """The windows' files, relative to their folder, and a sentence for each that is not as it was sealed, by name."""
    files: list[FileInfo] = []
    damaged: dict[str, str] = {}
    for window in sealed:
        path = paths.window_file(window.name)
        info = root.info(f"{paths.WINDOWS}/{path}")
        if info is not None and info.size == window.bytes:
            files.append(FileInfo(path, info.size, info.version))
            continue
        what = "is gone" if info is None else f"has {info.size:,} bytes, and was sealed with {window.bytes:,}"
        damaged[window.name] = f"{root.uri}/{paths.WINDOWS}/{path} {what}; put it back as it was"
    return files, damaged


class PlannedWindows:
    """What the plans of one pipeline have of its windows."""

    def __init__(self, database: RequestsDatabase, pipeline: str) -> None:
        self._database = database
        self._pipeline = pipeline

    def unplanned(self, most: int, sealed_before: float | None = None) -> list[SealedWindow]:
        """Sealed windows that no plan has as far as the database knows, oldest first, at most `most`.

        `sealed_before`: unix seconds.
        """
        self._database.prepare()
        until = "" if sealed_before is None else " AND sealed_at < :sealed_before"
        query = sa.text(
            "SELECT name, bytes FROM requests_windows WHERE pipeline = :pipeline AND generation IS NULL "
            f"AND sealed_at IS NOT NULL{until} ORDER BY opened, name LIMIT :most"
        )
        values = {"pipeline": self._pipeline, "most": most, "sealed_before": sealed_before}
        with self._database.read() as connection:
            return [SealedWindow(row.name, row.bytes) for row in connection.execute(query, values)]

    def newest_generation(self) -> int:
        """The newest generation that windows are noted in; 0 before the first."""
        query = sa.text("SELECT max(generation) FROM requests_windows WHERE pipeline = :pipeline")
        with self._database.read() as connection:
            return connection.scalar(query, {"pipeline": self._pipeline}) or 0

    def note_planned(self, generation: int, segments: Sequence[Segment]) -> None:
        """Remember in which shards the windows of a generation are; repeatable."""
        names = sorted({segment.window for segment in segments})
        if not names:
            return
        with self._database.write() as connection:
            connection.execute(
                sa.text(
                    "INSERT INTO requests_segments (pipeline, window_name, first_row, last_row, shard) "
                    "VALUES (:pipeline, :window, :first_row, :last_row, :shard) ON CONFLICT DO NOTHING"
                ),
                [{"pipeline": self._pipeline, **_values(segment)} for segment in segments],
            )
            connection.execute(
                sa.text(
                    "UPDATE requests_windows SET generation = :generation "
                    "WHERE pipeline = :pipeline AND name = :name AND generation IS NULL"
                ),
                [{"pipeline": self._pipeline, "generation": generation, "name": name} for name in names],
            )


def _values(segment: Segment) -> dict[str, str | int]:
    return {
        "window": segment.window,
        "first_row": segment.first_row,
        "last_row": segment.last_row,
        "shard": segment.shard,
    }


def segments_of(database: RequestsDatabase, pipeline: str, windows: Collection[str]) -> list[Segment]:
    """In which shards the rows of some windows are, window by window in the order of their rows."""
    if not windows:
        return []
    with database.read() as connection:
        return [
            Segment(*row)
            for row in connection.execute(_SEGMENTS, {"pipeline": pipeline, "windows": list(windows)})
        ]


class Shards:
    """The shard of each row of some windows, read by one query."""

    def __init__(self, database: RequestsDatabase, pipeline: str, windows: Collection[str]) -> None:
        self._found: dict[str, list[Segment]] = {}
        for segment in segments_of(database, pipeline, windows):
            self._found.setdefault(segment.window, []).append(segment)

    def of(self, window: str, row: int) -> str | None:
        """The shard that has this row of a window; None before it is planned."""
        segments = self._found.get(window, [])
        place = bisect_right(segments, row, key=lambda segment: segment.first_row) - 1
        return segments[place].shard if place >= 0 and row < segments[place].last_row else None


_SEGMENTS = sa.text(
    "SELECT window_name, first_row, last_row, shard FROM requests_segments "
    "WHERE pipeline = :pipeline AND window_name IN :windows ORDER BY window_name, first_row"
).bindparams(sa.bindparam("windows", expanding=True))


def shards_between(
    database: RequestsDatabase, pipeline: str, since: float | None, until: float | None
) -> list[str]:
    """The shards that hold windows opened from one time to before another (unix seconds), by key."""
    database.prepare()
    query = sa.text(
        "SELECT DISTINCT shard FROM requests_segments JOIN requests_windows ON "
        "requests_windows.pipeline = requests_segments.pipeline AND name = window_name "
        "WHERE requests_segments.pipeline = :pipeline AND opened >= :since AND opened < :until ORDER BY shard"
    )
    span = {
        "since": float("-inf") if since is None else since,
        "until": float("inf") if until is None else until,
    }
    with database.read() as connection:
        return list(connection.scalars(query, {"pipeline": pipeline, **span}))
