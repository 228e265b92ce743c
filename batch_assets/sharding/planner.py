"""Planning a generation of a source of files: list it, walk over it, settle the columns.

How records are found and cut into shards on the way is in `source_walk.py` and `cutting.py`. When a
generation is due is for `control/` to say; the plan's files are `plan_files.py`'s, and the plan of a
pipeline over another one's shards is `chained.py`'s.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace as replace_fields

from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.paths import shard_order
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.source import UNIQUE
from batch_assets.sharding.known import KnownSource, read_known
from batch_assets.sharding.opening import file_rules
from batch_assets.sharding.plan import PlannedTable, PlanResult, Shard
from batch_assets.sharding.source_walk import SourceWalk, walk_over
from batch_assets.sharding.unique_ids import refuse_ids
from batch_assets.sharding.unreadable import (
    Unreadable,
    describe_unreadable,
    read_unreadable_or_none,
    still_unreadable,
)
from batch_assets.sources.base import SourceFile
from batch_assets.sources.columns import ColumnScan
from batch_assets.sources.hive import HivePartitions, find_partitions
from batch_assets.sources.listing import Listing, list_source
from batch_assets.sources.spool_files import Spools
from batch_assets.sources.tables.markers import NAMES, TABLE_FORMATS
from batch_assets.sources.tables.snapshot import TableSnapshot, write_table_files
from batch_assets.storage import FileInfo, Storage


def plan_generation(
    settings: PipelineSettings,
    root: Storage,
    *,
    min_records: int = 0,
    replace: bool = False,
    spools: Spools | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PlanResult:
    """Plan what no generation under `root` has planned yet: new files, and what a raised limit adds.

    `spools` (by default those under `root`) takes the spools; nothing else is written. `min_records` is the
    executor's minimum for a shard. With `replace`, touched and removed files' shards are
    superseded: touched files are planned anew, and so are the other files' records in those
    shards. `on_progress` is told the source bytes done and to do.

    A new file that cannot be read as a whole costs itself (`PlanResult.unreadable`). Raises SourceError
    where the source has no files, none of them can be read, or the first plan would have no record;
    ConfigurationError where settings and source do not fit, ids that are not unique among them.
    """
    uri = source_uri(settings)
    if min_records > settings.shards.records:
        raise ConfigurationError(
            f"shards.records: {settings.shards.records:,} is under the executor's minimum of "
            f"{min_records:,} records in a shard; raise it"
        )
    source = settings.source
    listing = list_source(uri, source.format, [settings.output.root, root.uri], file_rules(settings))
    known = read_known(root, listing.location.storage.uri, with_shards=replace)
    if known.format in TABLE_FORMATS and listing.table is None:
        raise SourceError(
            f"{uri}: is planned as {NAMES[known.format]}, and has no log now that tells its rows; put it back, or give "
            "what is there now an output root of its own"
        )
    spools = spools or Spools(root)
    listed = {info.path: info for info in listing.files}
    touched = [
        path for path, file in known.files.items() if path in listed and listed[path].version != file.version
    ]
    unchanged = frozenset(known.files.keys() & listed.keys()) - set(touched)
    removed = [path for path in known.files if path not in listed] if _whole(known, listing) else []
    superseded = _superseded(known, {*touched, *removed}) if replace else []
    table = listing.table
    waits = table is not None and not replace and bool(touched or removed)
    if waits:
        # New rows beside old ones that the table has no more would be a version that never was.
        listing = replace_fields(listing, files=[info for info in listing.files if info.path in unchanged])
    partitions, told = _partitions(listing, known)
    walk = walk_over(
        lambda passed_over: SourceWalk(
            settings, spools, listing, known, partitions,
            min_records=min_records, on_progress=on_progress, passed_over=passed_over,
        ),
        frozenset(touched if replace else ()),
        superseded,
    )  # fmt: skip
    shards = walk.cutter.finish()
    looked_at = {file.path for file in (*walk.files, *walk.unreadable)} | known.files.keys()
    # Behind a limit, and in a table's version that waits, files are not looked at, and as damaged as before.
    carried = still_unreadable(read_unreadable_or_none(root) or (), listed, looked_at)
    found = sorted([*walk.unreadable, *carried], key=lambda file: file.path)
    # What is planned already was there, and its records count.
    links = [info for info in listing.dangling if info.path not in known.files]
    unreadable = [*found, *map(_misnamed, listing.misnamed), *map(_dangling, links)]
    if unreadable and not shards and known.columns is None:
        raise SourceError(unreadable[0].reason if len(unreadable) == 1 else describe_unreadable(unreadable))
    if known.columns is None and not shards:
        raise SourceError(
            f"{uri}: its {len(listing.files):,} files hold no records; there is nothing to embed"
        )
    walk.alike.refuse_strangers(listing.location.storage.uri, source.always_include)
    summary = walk.summary(
        shards,
        uri,
        left_out=[*listing.left_out, *([told] if told else []), *_left_out(walk.columns)],
        superseded=superseded,
        table=_planned_table(table, walk.files, shards, spools) if table is not None else None,
        partitions=partitions.types,
    )
    ids = walk.ids.count()
    if source.ids == UNIQUE and not ids.unique:
        refuse_ids(settings, walk.sources, summary, shards, walk.ids)
    return PlanResult(
        summary,
        shards,
        sorted(touched),
        sorted(removed),
        unchanged,
        walk.columns.notes(),
        walk.columns.merged(),
        ids,
        walk.ids,
        table.version if table is not None else None,
        waits,
        unreadable,
    )


def _misnamed(info: FileInfo) -> Unreadable:
    return Unreadable(info.path, info.version, f"the name {info.path!r} is no UTF-8 (rename the file)")


def _dangling(info: FileInfo) -> Unreadable:
    reason = f"{info.path}: is a link to {info.version}, where nothing is (mount or restore that, or remove the link)"
    return Unreadable(info.path, f"link to {info.version}", reason)


def _partitions(listing: Listing, known: KnownSource) -> tuple[HivePartitions, str | None]:
    """The columns in the names of folders, and a sentence on such names that are none; a table tells its own."""
    single, of_images = listing.location.single is not None, listing.format in ("webdataset", "imagefolder")
    if listing.table is not None or single or of_images:
        return HivePartitions({}), None
    return find_partitions((info.path for info in listing.files), known.partitions)


def _planned_table(
    table: TableSnapshot, files: Sequence[SourceFile], shards: Sequence[Shard], spools: Spools
) -> PlannedTable | None:
    """What is fixed of the table in this generation; None where it has none of its files."""
    wanted = {file.path for file in files} | {s.path for shard in shards for s in shard.segments}
    if not wanted:
        return None
    return PlannedTable(table.version, write_table_files(spools, table, wanted))


def source_uri(settings: PipelineSettings) -> str:
    """The source's URI. Another pipeline as source must have been resolved into one before."""
    if settings.source.uri is None:
        raise ValueError("source.pipeline must be resolved into a URI before planning")
    return settings.source.uri


def _left_out(columns: ColumnScan) -> list[str]:
    """A sentence on the columns that are left out unless they are named."""
    names = ", ".join(map(repr, sorted(columns.unnamed_files)))
    return (
        [f"the columns {names}, which hold files; source.columns passes through what it names"]
        if names
        else []
    )


def _whole(known: KnownSource, listing: Listing) -> bool:
    """Whether the listing shows all that is known: a single file says nothing about its folder."""
    return listing.location.single is None or known.files.keys() == {listing.location.single}


def _superseded(known: KnownSource, gone: set[str]) -> list[str]:
    """The shards with a record of these files, in the order of planning."""
    keys = [key for key, shard in known.shards.items() if any(s.path in gone for s in shard.segments)]
    return sorted(keys, key=shard_order)
