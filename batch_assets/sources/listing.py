"""Which files a source consists of: of one format, in the order of their paths, with what is left out."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from batch_assets import paths
from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.settings.source import IMAGE_FORMATS
from batch_assets.sources.files import COMPRESSIONS
from batch_assets.storage import FileInfo, Storage, is_local, join_uri, normalize_uri, open_storage

EXTENSIONS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".tar": "webdataset",
}
_SPOOLED = ("jsonl", "csv")  # what may be compressed
_NAMES_LOOKED_AT = 1_000
_COMPRESSED_TARS = (".tgz", *(f".tar{suffix}" for suffix in (".gz", ".zst", ".bz2", ".xz")))


@dataclass(frozen=True)
class Location:
    """Where a source's files lie. Paths are relative to `storage`; `single` is the only file's, if so."""

    storage: Storage
    single: str | None


@dataclass(frozen=True)
class Listing:
    """A source's files, ordered by path, and a sentence for each kind of file that was left out."""

    location: Location
    format: str
    files: Sequence[FileInfo]
    left_out: Sequence[str]


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


def format_of(path: str) -> str | None:
    """The format that a file's name tells, or None."""
    name = path.lower()
    stem, extension = os.path.splitext(name)
    if extension in COMPRESSIONS:
        format = EXTENSIONS.get(os.path.splitext(stem)[1])
        return format if format in _SPOOLED else None
    return EXTENSIONS.get(extension)


def is_of_format(path: str, format: str) -> bool:
    """Whether a file in a folder is one of a source of this format."""
    return format_of(path) == ("parquet" if format == "img2dataset" else format)


def guess_format(uri: str, leave_out: Sequence[str] = (), *, tables: bool = False) -> str | None:
    """The format of images that a file or folder seems to hold: webdataset, img2dataset, or None.

    Its first names tell: tars, or Parquet files with img2dataset's statistics beside one; with
    `tables`, any Parquet files. Files under the URIs in `leave_out` are no part of it.
    """
    location = locate(uri)
    storage, single = location.storage, location.single
    infos = storage.list() if single is None else filter(None, [storage.info(single)])
    try:
        names = {info.path for info in islice(visible(infos, storage, leave_out, []), _NAMES_LOOKED_AT)}
    except PermissionError:  # told when the source is listed
        return None
    formats = {format_of(name) for name in names}
    if "webdataset" in formats:
        return "webdataset"
    known = any(os.path.splitext(name)[0] + "_stats.json" in names for name in names if ".parquet" in name)
    return "img2dataset" if known or (tables and "parquet" in formats) else None


def list_source(uri: str, format: str | None, leave_out: Sequence[str] = ()) -> Listing:
    """List the files of a source. Files under the URIs in `leave_out` (the output root) are no part of it.

    Raises SourceError where there is none, ConfigurationError where `format` must be named.
    """
    location = locate(uri)
    storage = location.storage
    for root in leave_out:
        _refuse_own_folders(location, root)
    if location.single is not None:
        return _single_file(uri, location, location.single, format)
    for root in leave_out:
        if _real(root) == _real(storage.uri):
            raise ConfigurationError(
                f"output.root: {root!r} is the source's own folder; name a folder of its own"
            )
    hidden: list[str] = []
    others: Counter[str] = Counter()
    files: dict[str, list[FileInfo]] = {}
    try:
        for info in visible(storage.list(), storage, leave_out, hidden):
            found = format_of(info.path)
            if format in IMAGE_FORMATS:  # whatever else lies there, such as statistics, goes by its name
                found = format if is_of_format(info.path, format) else None
            if found is None:
                others[_extension(info.path)] += 1
            else:
                files.setdefault(found, []).append(info)
    except PermissionError as error:
        raise SourceError(f"{error.filename}: cannot be listed; allow it, or move the folder away") from None
    if format is None:
        _refuse_unnamed(files, storage.uri)
    chosen = format or next(iter(files), None)
    left_out = [f"{sum(others.values()):,} files of other extensions ({_counts(others)})"] if others else []
    left_out += [f"{len(infos):,} {kind} files" for kind, infos in files.items() if kind != chosen]
    if hidden:
        left_out.append(
            f"{len(hidden):,} files with a name or folder that begins with '.' or '_', such as {hidden[0]}"
        )
    if chosen is None or not files.get(chosen):
        raise _nothing_found(storage, format, others, left_out)
    return Listing(location, chosen, sorted(files[chosen], key=lambda info: info.path), left_out)


def _refuse_own_folders(location: Location, root: str) -> None:
    """Raise ConfigurationError where the source lies in a folder of the output root that this program fills."""
    uri = location.storage.uri
    lies_at = uri if location.single is None else join_uri(uri, location.single)
    for inside in _below(lies_at, root):
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
    info = location.storage.info(path)
    return Listing(location, found, [info] if info is not None else [], [])


def _nothing_found(
    storage: Storage, format: str | None, others: Counter[str], left_out: Sequence[str]
) -> SourceError:
    if format == "webdataset" and any(extension in _COMPRESSED_TARS for extension in others):
        return SourceError(
            f"{storage.uri}: only compressed tars are there ({_counts(others)}), in which no image can be "
            "reached; unpack them (gunzip, zstd -d) and try again"
        )
    wanted = f"{format} files" if format else f"files ending in {', '.join(EXTENSIONS)}"
    rest = f"; there are {', '.join(left_out)}" if left_out else "; is the path right?"
    return SourceError(f"{storage.uri}: no {wanted} found{rest}")


def _refuse_unnamed(files: Mapping[str, Sequence[FileInfo]], uri: str) -> None:
    """Raise ConfigurationError where one of several formats, or of images, is to be named."""
    tars, tables = files.get("webdataset", ()), files.get("parquet", ())
    others = {
        info.path for kind, infos in files.items() for info in infos if kind not in ("webdataset", "parquet")
    }
    statistics = {os.path.splitext(info.path)[0] + "_stats.json" for info in tables}
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


def _extension(path: str) -> str:
    name = path.lower()
    compressed = next((extension for extension in _COMPRESSED_TARS if name.endswith(extension)), None)
    return compressed or os.path.splitext(path)[1] or "no extension"


def visible(
    infos: Iterable[FileInfo], storage: Storage, leave_out: Sequence[str], hidden: list[str]
) -> Iterator[FileInfo]:
    """Drop output roots, and what is hidden by its name, which is appended to `hidden`."""
    prefixes = tuple(f"{path}/" for root in leave_out for path in _below(root, storage.uri))
    for info in infos:
        if prefixes and info.path.startswith(prefixes):
            continue
        if any(part.startswith((".", "_")) for part in info.path.split("/")):
            hidden.append(info.path)
            continue
        try:
            info.path.encode()
        except UnicodeEncodeError:
            raise SourceError(f"{storage.uri}: the file name {info.path!r} is no UTF-8; rename it") from None
        yield info


def _below(uri: str, root: str) -> set[str]:
    """The paths of `uri` relative to `root`, as they are spelled and as links lead; none where it lies elsewhere."""
    spelled = (normalize_uri(uri), normalize_uri(root)), (_real(uri), _real(root))
    return {
        one.removeprefix(folder.rstrip("/") + "/")
        for one, folder in spelled
        if one.startswith(folder.rstrip("/") + "/")
    }


def _real(uri: str) -> str:
    """The one place that a URI means, whatever symbolic links lead there."""
    uri = normalize_uri(uri)
    return os.path.realpath(uri) if is_local(uri) else uri


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counter.most_common(3))
