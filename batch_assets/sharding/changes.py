"""What has changed at a source since it was planned, found a bounded number of files at a time.

Finding is cheap and decides nothing: new files are planned by `planner.py` when somebody asks.
"""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from batch_assets.settings import PipelineSettings
from batch_assets.sharding.planner import source_uri
from batch_assets.sources.base import SourceFile
from batch_assets.sources.listing import format_of, locate, visible

FILES_PER_PAGE = 1_000


@dataclass(frozen=True)
class SourceChanges:
    """Paths, ordered, of one stretch of the listing. `cursor` is where to go on; None: that was all."""

    new: list[str]
    touched: list[str]
    removed: list[str]
    cursor: str | None


def compare_source(
    settings: PipelineSettings,
    known: Mapping[str, SourceFile],
    format: str,
    after: str | None = None,
    pages: int = 1,
) -> SourceChanges:
    """Compare the next `pages` thousand listed files, those behind path `after`, with the planned ones.

    `known` and `format` are those of the plans (`read_known`). A file that a limit ended in is
    no change.
    """
    location = locate(source_uri(settings))
    storage = location.storage
    if location.single is not None:
        infos = [info for info in [storage.info(location.single)] if info is not None]
        last = None
    else:
        infos = list(islice(storage.list(after=after), pages * FILES_PER_PAGE))
        last = infos[-1].path if len(infos) == pages * FILES_PER_PAGE else None
    found = {
        info.path: info.version
        for info in visible(infos, storage, [settings.output.root], [])
        if location.single is not None or format_of(info.path) == format
    }
    ordered = sorted(known)
    start = bisect.bisect_right(ordered, after) if after is not None else 0
    end = bisect.bisect_right(ordered, last) if last is not None else len(ordered)
    return SourceChanges(
        new=[path for path in found if path not in known],
        touched=[path for path, version in found.items() if path in known and known[path].version != version],
        removed=[path for path in ordered[start:end] if path not in found] if location.single is None else [],
        cursor=last,
    )
