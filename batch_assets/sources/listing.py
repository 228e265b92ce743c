"""Which files a source consists of: of one format, in the order of their paths, with what is left out."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from batch_assets import paths
from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.sources.folder import counted, look
from batch_assets.sources.foreign import FileRules
from batch_assets.sources.formats import COMPRESSED_TARS, EXTENSIONS, format_of, is_of_format
from batch_assets.sources.image_listing import TABLES, image_files, is_image, stem
from batch_assets.sources.image_metadata import CAPTION, METADATA
from batch_assets.sources.tables.markers import (
    NAMES,
    TABLE_FORMATS,
    refuse_inside,
    refuse_tables,
    table_at,
)
from batch_assets.sources.tables.reading import live_files, read_table
from batch_assets.sources.tables.snapshot import TableSnapshot
from batch_assets.sources.visibility import paths_below
from batch_assets.storage import FileInfo, Storage, is_local, join_uri, normalize_uri, open_storage, real_uri

_ALL_FILES = FileRules()


@dataclass(frozen=True)
class Location:
    """Where a source's files lie. Paths are relative to `storage`; `single` is the only file's, if so."""

    storage: Storage
    single: str | None


@dataclass(frozen=True)
class Listing:
    """A source's files, ordered by path, and a sentence for each kind of file that was left out.

    `misnamed` are those of its format whose name is no UTF-8, which no plan can hold, and `dangling` links that lead
    to nothing. Of a table they are those of its current version, `table`.
    """

    location: Location
    format: str
    files: Sequence[FileInfo]
    left_out: Sequence[str]
    table: TableSnapshot | None = None
    misnamed: Sequence[FileInfo] = ()
    dangling: Sequence[FileInfo] = ()


def locate(uri: str) -> Location:
    """Tell a file from a folder. A URI of neither is taken for a folder, which will be empty."""
    uri = normalize_uri(uri)
    if is_local(uri):
        if os.path.isfile(uri):
            return Location(open_storage(os.path.dirname(uri)), os.path.basename(uri))
        return Location(open_storage(uri), None)
    parent, _, name = uri.rpartition("/")
    if not parent.endswith("/"):  # not the bucket itself
        storage = open_storage(parent)
        if storage.info(name) is not None:
            return Location(storage, name)
    return Location(open_storage(uri), None)


def belong_to_images(images: set[str], names: Iterable[str]) -> bool:
    """Whether all that could be records stands beside an image, or is a table of images. `images` are stems."""
    return all(
        format_of(name) is None
        or (name.lower().endswith(f".{METADATA}") and stem(name) in images)
        or name.rpartition("/")[2] in TABLES
        for name in names
    )


def list_source(
    uri: str, format: str | None, leave_out: Sequence[str] = (), rules: FileRules = _ALL_FILES
) -> Listing:
    """List the files of a source. Files under the URIs in `leave_out` (the output root) are no part of it.

    Raises SourceError where there is none, ConfigurationError where `format` must be named.
    """
    location = locate(uri)
    storage = location.storage
    for root in leave_out:
        _refuse_own_folders(location, root)
    refuse_inside(storage.uri if location.single is None else join_uri(storage.uri, location.single))
    if location.single is not None:
        return _single_file(uri, location, location.single, format)
    if (kind := table_at(storage)) is not None:
        return _list_table(location, kind, format, rules)
    if format in TABLE_FORMATS:
        raise ConfigurationError(f"source.format: {format}: {storage.uri} is not {NAMES[format]}'s folder")
    try:
        seen = look(storage, format, leave_out, rules)
    except PermissionError as error:
        raise SourceError(f"{error.filename}: cannot be listed; allow it, or move the folder away") from None
    refuse_tables(storage.uri, seen.tables)
    files = seen.files
    if format is None:
        _refuse_unnamed(files, seen.images, storage.uri)
    chosen = format or next(iter(files), None)
    left_out = seen.told(chosen)
    if chosen is None or not files.get(chosen):
        raise _nothing_found(storage, format, seen.others, left_out)
    ordered = sorted(files[chosen], key=lambda info: info.path)
    misnamed = [info for info in seen.misnamed if is_of_format(info.path, chosen)]
    dangling = [info for info in seen.dangling if is_of_format(info.path, chosen)]
    return Listing(location, chosen, ordered, left_out, misnamed=misnamed, dangling=dangling)


def _list_table(location: Location, kind: str, format: str | None, rules: FileRules) -> Listing:
    uri = location.storage.uri
    if rules.exclude:
        raise ConfigurationError(
            f"source.exclude: {uri} is {NAMES[kind]}, which is read as a whole; leave source.exclude out"
        )
    if format not in (None, kind):
        raise ConfigurationError(
            f"source.format: {format}: {uri} is {NAMES[kind]}, whose files are not to be read one by one: old and "
            "deleted rows are among them; leave source.format out"
        )
    table = read_table(kind, location.storage)
    files, others = live_files(table, location.storage)
    left_out = [f"{others:,} Parquet files that are not part of the table's version {table.version}"]
    return Listing(location, kind, files, left_out if others else [], table)


def _refuse_own_folders(location: Location, root: str) -> None:
    """Raise ConfigurationError where the source lies in a folder of the output root that this program fills."""
    uri = location.storage.uri
    if location.single is None and real_uri(root) == real_uri(uri):
        raise ConfigurationError(
            f"output.root: {root!r} is the source's own folder; name a folder of its own"
        )
    lies_at = uri if location.single is None else join_uri(uri, location.single)
    for inside in paths_below(lies_at, root):
        own = inside.split("/")[0]
        if own in paths.FOLDERS:
            raise ConfigurationError(
                f"source.uri: {uri} lies in {own}/ of output.root {root}, which holds the pipeline's own files; "
                "move the source out of there, or name another output.root"
            )


def _single_file(uri: str, location: Location, path: str, format: str | None) -> Listing:
    found = format or format_of(path)
    if found is None:
        known = ", ".join(EXTENSIONS)
        raise ConfigurationError(
            f"source.uri: {uri!r} tells no format by its name ({known}); name source.format"
        )
    if format is None and found == "webdataset":
        raise _unnamed(join_uri(location.storage.uri, path), "is a tar", found)
    if found == "imagefolder":
        beside = (f"{stem(path)}.{extension}" for extension in (CAPTION, METADATA))
        infos = (location.storage.info(name) for name in (path, *beside))
        return Listing(location, found, image_files(filter(None, infos))[0], [])
    info = location.storage.info(path)
    return Listing(location, found, [info] if info is not None else [], [])


def _nothing_found(
    storage: Storage, format: str | None, others: Counter[str], left_out: Sequence[str]
) -> SourceError:
    if format == "webdataset" and any(extension in COMPRESSED_TARS for extension in others):
        return SourceError(
            f"{storage.uri}: only compressed tars are there ({counted(others)}), in which no image can be "
            "reached; unpack them (gunzip, zstd -d) and try again"
        )
    images = Counter({name: count for name, count in others.items() if is_image(f"x{name}")})
    if format is None and images:
        return SourceError(
            f"{storage.uri}: holds images ({counted(images)}); if they are what is to be embedded, write "
            "source.format: imagefolder (--format imagefolder)"
        )
    if ".arrow" in others:
        left_out = [
            *left_out,
            "which is how Hugging Face's save_to_disk writes: write Parquet with to_parquet()",
        ]
    wanted = f"{format} files" if format else f"files ending in {', '.join(EXTENSIONS)}"
    rest = f"; there are {', '.join(left_out)}" if left_out else "; is the path right?"
    return SourceError(f"{storage.uri}: no {wanted} found{rest}")


def _refuse_unnamed(files: Mapping[str, Sequence[FileInfo]], images: set[str], uri: str) -> None:
    """Raise ConfigurationError where one of several formats, or of images, is to be named.

    `images` are the image files' paths without their extensions.
    """
    tars, tables = files.get("webdataset", ()), files.get("parquet", ())
    others = {
        info.path for kind, infos in files.items() for info in infos if kind not in ("webdataset", "parquet")
    }
    statistics = {os.path.splitext(info.path)[0] + "_stats.json" for info in tables}
    folders = {os.path.dirname(path) for path in images}
    beside = folders & {stem(info.path) for info in tables}  # as img2dataset writes its `files`
    if beside or (images and others and not (tars or tables) and belong_to_images(images, others)):
        raise _unnamed(uri, f"holds {len(images):,} images with files beside them", "imagefolder")
    if tars and all(path.lower().endswith(".json") for path in others):
        raise _unnamed(uri, f"holds {len(tars):,} tars", "webdataset")
    if statistics and statistics <= others:
        what = f"holds {len(tables):,} Parquet files with their _stats.json, as img2dataset writes them"
        raise _unnamed(uri, what, "img2dataset")
    if len(files) > 1:
        kinds = ", ".join(f"{kind} ({len(infos):,} files)" for kind, infos in sorted(files.items()))
        raise ConfigurationError(f"source.format: {uri} holds {kinds}; name one")


def _unnamed(uri: str, holds: str, format: str) -> ConfigurationError:
    return ConfigurationError(
        f"source.format: {uri} {holds}; if its records are images, write source.format: {format} "
        f"(--format {format})"
    )
