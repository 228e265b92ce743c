"""What has changed at a source since it was planned, found a bounded number of files at a time.

Finding is cheap and decides nothing: new files are planned by `planner.py` when somebody asks.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.opening import file_rules
from batch_assets.sharding.planner import source_uri
from batch_assets.sharding.unreadable import Unreadable, read_unreadable_or_none
from batch_assets.sources.foreign import FileRules, is_metadata, roots_around
from batch_assets.sources.formats import is_of_format
from batch_assets.sources.image_listing import PlannedImage
from batch_assets.sources.listing import list_source, locate
from batch_assets.sources.tables.markers import TABLE_FORMATS, is_table, table_at
from batch_assets.sources.tables.reading import table_version
from batch_assets.sources.visibility import excluding, is_utf8, visible
from batch_assets.storage import FileInfo, Storage, open_storage

FILES_PER_PAGE = 1_000
_VERSION = "\0version "  # a cursor that begins so is no path
_FULL = "\0full"  # what ends it, where a limit hides what is new


@dataclass(frozen=True)
class SourceChanges:
    """Paths, ordered, of one stretch of the listing. `cursor` is where to go on; None: that was all.

    `waits`: it is a table's new version, of which nothing is planned before `plan --replace`.
    """

    new: list[str]
    touched: list[str]
    removed: list[str]
    cursor: str | None
    waits: bool = False


def compare_source(
    settings: PipelineSettings,
    planned: Callable[[str | None, str | None], Mapping[str, str]],
    format: str,
    after: str | None = None,
    pages: int = 1,
    *,
    full: bool = False,
) -> SourceChanges:
    """Compare the next `pages` thousand listed files, those behind path `after`, with the planned ones.

    `planned(after, until)` gives the versions of the planned files with a path behind `after`
    and not behind `until` (None: no bound); `format` is that of the plan. Where the plan is `full`, by a
    limit, nothing is new, and what the last plan has left out is not while it is as it was. A table is compared as
    a whole; where nothing is new in it, the cursor is its version with those of the files that are left out, and
    while it has these it is not looked at again.
    """
    location = locate(source_uri(settings))
    storage = location.storage
    if format in TABLE_FORMATS:
        # Of a folder that is such a table no more, the comparison says so.
        looked_at = f"{_VERSION}{table_version(format, storage)}" if table_at(storage) == format else None
        if looked_at is not None:
            looked_at += (_FULL if full else "") + _versions_of_left_out(settings, storage)
        if looked_at is not None and after == looked_at:
            return SourceChanges([], [], [], looked_at)
        changes = _compare_table(settings, planned(None, None), format, full=full)
        return changes if changes.new else replace(changes, cursor=looked_at)
    if after is not None and after.startswith(_VERSION):
        after = None
    last = None
    if location.single is not None:
        infos = [info for info in [storage.info(location.single)] if info is not None]
    else:
        infos, last = _page(storage, after, pages * FILES_PER_PAGE)
        if is_table(infos):  # by now: files that are planned one by one are not its rows
            return _compare_table(settings, planned(None, None), None, full=full)
    seen = visible(excluding(infos, settings.source.exclude, []), storage, [settings.output.root], [], format)
    found = {
        info.path: info for info in seen if location.single is not None or is_of_format(info.path, format)
    }
    known = planned(after, last)
    new = [info for path, info in found.items() if path not in known] if not full else []
    new = _not_left_out(new, settings, storage)
    if location.single is None:
        new = _records(new, storage, file_rules(settings))
    return SourceChanges(
        new=[info.path for info in new],
        # Of an image only its own file is compared: what stands beside it may be on another page.
        touched=[
            path
            for path, info in found.items()
            if path in known and PlannedImage.of(known[path]).version != info.version
        ],
        removed=[path for path in known if path not in found] if location.single is None else [],
        cursor=last,
    )


def _page(storage: Storage, after: str | None, most: int) -> tuple[list[FileInfo], str | None]:
    """The next files behind path `after`, and the path to go on behind (None: that was all).

    There are more than `most` where that one's name is no UTF-8, and neither a cursor nor the ledger can hold it.
    """
    infos: list[FileInfo] = []
    for info in storage.list(after=after):
        infos.append(info)
        if len(infos) >= most and is_utf8(info.path):
            return infos, info.path
    return infos, None


def _left_out(settings: PipelineSettings) -> Sequence[Unreadable]:
    """What the last plan could not read. Where the note is damaged, all of it is new: a plan writes the note anew."""
    return read_unreadable_or_none(open_storage(settings.output.root)) or ()


def _not_left_out(new: Sequence[FileInfo], settings: PipelineSettings, storage: Storage) -> list[FileInfo]:
    """Without the files that the last plan could not read, as long as they are the same."""
    noted = {file.path: file for file in _left_out(settings)} if new else {}
    return [info for info in new if info.path not in noted or not noted[info.path].is_as_noted(info, storage)]


def _versions_of_left_out(settings: PipelineSettings, storage: Storage) -> str:
    """What the files have now that no plan could read: one may be mended in place, and its table is as it was."""
    paths = [path for file in _left_out(settings) for path in (file.path, file.beside) if path]
    found = [(path, info.version if (info := storage.info(path)) else None) for path in paths]
    return f"\0left out {hashlib.sha256(repr(found).encode()).hexdigest()[:16]}" if found else ""


def _records(new: Sequence[FileInfo], storage: Storage, rules: FileRules) -> list[FileInfo]:
    """Those of the files that planning would not leave out as another pipeline's, or as metadata."""
    roots = tuple(f"{folder}/" for folder in roots_around(storage, [info.path for info in new]))
    kept = [info for info in new if not roots or not info.path.startswith(roots)]
    return [info for info in kept if not is_metadata(storage, info, rules)]


def _compare_table(
    settings: PipelineSettings, known: Mapping[str, str], format: str | None, *, full: bool
) -> SourceChanges:
    """All that differs in the table's current version. Where it waits for `plan --replace`, nothing is new."""
    listing = list_source(source_uri(settings), format, [])
    found = {info.path: info for info in listing.files}
    touched = [path for path, info in found.items() if path in known and known[path] != info.version]
    removed = [path for path in known if path not in found]
    waits = bool(touched or removed)
    new = [info for path, info in found.items() if path not in known] if not (waits or full) else []
    new = _not_left_out(new, settings, listing.location.storage)
    return SourceChanges([info.path for info in new], touched, removed, None, waits)
