"""What has changed at a source since it was planned, found a bounded number of files at a time.

Finding is cheap and decides nothing: new files are planned by `planner.py` when somebody asks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.opening import file_rules
from batch_assets.sharding.plan import PlannedTable
from batch_assets.sharding.planner import source_uri
from batch_assets.sources.foreign import FileRules, is_metadata, may_be_metadata, roots_around
from batch_assets.sources.formats import is_of_format
from batch_assets.sources.image_listing import PlannedImage
from batch_assets.sources.listing import list_source, locate
from batch_assets.sources.tables.markers import TABLE_FORMATS, is_table
from batch_assets.sources.tables.reading import table_version
from batch_assets.sources.visibility import excluding, visible
from batch_assets.storage import Storage

FILES_PER_PAGE = 1_000


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
    table: PlannedTable | None = None,
) -> SourceChanges:
    """Compare the next `pages` thousand listed files, those behind path `after`, with the planned ones.

    `planned(after, until)` gives the versions of the planned files with a path behind `after`
    and not behind `until` (None: no bound); `format` is that of the plan, and `table` what its
    newest generation is of. A table is compared as a whole, but only where its version is another one.
    """
    location = locate(source_uri(settings))
    storage = location.storage
    if format in TABLE_FORMATS:
        known = planned(None, None)
        alike = table if table is not None and len(known) == table.data_files else None
        if alike is not None and table_version(format, storage) == alike.version:
            return SourceChanges([], [], [], None)
        return _compare_table(settings, known, format)
    last = None
    if location.single is not None:
        infos = [info for info in [storage.info(location.single)] if info is not None]
    else:
        infos = list(islice(storage.list(after=after), pages * FILES_PER_PAGE))
        last = infos[-1].path if len(infos) == pages * FILES_PER_PAGE else None
        if is_table(infos):  # by now: files that are planned one by one are not its rows
            return _compare_table(settings, planned(None, None), None)
    found = {
        info.path: info.version
        for info in visible(
            excluding(infos, settings.source.exclude, []), storage, [settings.output.root], [], format
        )
        if location.single is not None or is_of_format(info.path, format)
    }
    known = planned(after, last)
    new = [path for path in found if path not in known]
    return SourceChanges(
        new=_records(new, storage, file_rules(settings)) if location.single is None else new,
        # Of an image only its own file is compared: what stands beside it may be on another page.
        touched=[
            path
            for path, version in found.items()
            if path in known and PlannedImage.of(known[path]).version != version
        ],
        removed=[path for path in known if path not in found] if location.single is None else [],
        cursor=last,
    )


def _records(new: Sequence[str], storage: Storage, rules: FileRules) -> list[str]:
    """Those of the files that planning would not leave out as another pipeline's, or as metadata."""
    roots = tuple(f"{folder}/" for folder in roots_around(storage, new))
    kept = [path for path in new if not roots or not path.startswith(roots)]
    infos = ((path, storage.info(path) if may_be_metadata(path) else None) for path in kept)
    return [path for path, info in infos if info is None or not is_metadata(storage, info, rules)]


def _compare_table(settings: PipelineSettings, known: Mapping[str, str], format: str | None) -> SourceChanges:
    """All that differs in the table's current version. Where it waits for `plan --replace`, nothing is new."""
    found = {info.path: info.version for info in list_source(source_uri(settings), format, []).files}
    touched = [path for path, version in found.items() if path in known and known[path] != version]
    removed = [path for path in known if path not in found]
    waits = bool(touched or removed)
    new = [path for path in found if path not in known] if not waits else []
    return SourceChanges(new, touched, removed, None, waits)
