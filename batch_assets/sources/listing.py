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
from batch_assets.sources.image_listing import TABLES, image_files, is_image, stem
from batch_assets.sources.image_metadata import CAPTION, METADATA
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
    if format == "imagefolder":
        return is_image(path)
    return format_of(path) == ("parquet" if format == "img2dataset" else format)


def guess_format(uri: str, leave_out: Sequence[str] = (), *, tables: bool = False) -> str | None:
    """The format of images that a file or folder seems to hold: webdataset, img2dataset, imagefolder, or None.

    Its first names tell: tars; Parquet files with img2dataset's statistics beside one; images, in the folder of
    a Parquet file's name or with nothing else that could be meant. With `tables`, any Parquet files come
    before images elsewhere. Files under the URIs in `leave_out` are no part of it.
    """
    try:
        names = {info.path for info in _first_files(uri, leave_out)}
    except PermissionError:  # told when the source is listed
        return None
    if any(format_of(name) == "webdataset" for name in names):
        return "webdataset"
    images = [name for name in names if is_image(name)]
    # img2dataset's `files`: the images of 00000.parquet lie in 00000/.
    if any(f"{os.path.dirname(name)}.parquet" in names for name in images):
        return "imagefolder"
    known = any(os.path.splitext(name)[0] + "_stats.json" in names for name in names if ".parquet" in name)
    if known or (tables and any(format_of(name) == "parquet" for name in names)):
        return "img2dataset"
    return "imagefolder" if images and _belong_to({stem(name) for name in images}, names) else None


def first_of_format(uri: str, format: str, leave_out: Sequence[str] = ()) -> tuple[Storage, str] | None:
    """The first file of a format in a source, with its storage; None where its first files are of others."""
    for info in _first_files(uri, leave_out):
        if is_of_format(info.path, format):
            return locate(uri).storage, info.path
    return None


def _first_files(uri: str, leave_out: Sequence[str]) -> Iterator[FileInfo]:
    location = locate(uri)
    storage, single = location.storage, location.single
    infos = storage.list() if single is None else filter(None, [storage.info(single)])
    for info in islice(visible(infos, storage, leave_out, [], "imagefolder"), _NAMES_LOOKED_AT):
        if is_image(info.path) or not any(part.startswith("_") for part in info.path.split("/")):
            yield info


def _belong_to(images: set[str], names: Iterable[str]) -> bool:
    """Whether all that could be records stands beside an image, or is a table of images. `images` are stems."""
    return all(
        format_of(name) is None
        or (name.lower().endswith(f".{METADATA}") and stem(name) in images)
        or name.rpartition("/")[2] in TABLES
        for name in names
    )


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
    try:
        infos = visible(storage.list(), storage, leave_out, hidden, format)
        files, others, images = _sorted_out(infos, format)
    except PermissionError as error:
        raise SourceError(f"{error.filename}: cannot be listed; allow it, or move the folder away") from None
    if format is None:
        _refuse_unnamed(files, images, storage.uri)
    chosen = format or next(iter(files), None)
    left_out = [f"{sum(others.values()):,} files of other extensions ({_counts(others)})"] if others else []
    left_out += [f"{len(infos):,} {kind} files" for kind, infos in files.items() if kind != chosen]
    if hidden:
        left_out.append(
            f"{len(hidden):,} files with a name or folder that begins with '.' or "
            f"{'__' if format == 'imagefolder' else '_'!r}, such as {hidden[0]}"
        )
    if chosen is None or not files.get(chosen):
        raise _nothing_found(storage, format, others, left_out)
    return Listing(location, chosen, sorted(files[chosen], key=lambda info: info.path), left_out)


def _sorted_out(
    infos: Iterable[FileInfo], format: str | None
) -> tuple[dict[str, list[FileInfo]], Counter[str], set[str]]:
    """Files by their formats, the extensions of all others, and the images among those, without their extensions."""
    if format == "imagefolder":
        found, unused = image_files(infos)
        return {format: found}, Counter(map(_extension, unused)), set()
    files: dict[str, list[FileInfo]] = {}
    others: Counter[str] = Counter()
    images: set[str] = set()
    for info in infos:
        kind = format_of(info.path)
        if format in IMAGE_FORMATS:  # whatever else lies there, such as statistics, goes by its name
            kind = format if is_of_format(info.path, format) else None
        if kind is not None:
            files.setdefault(kind, []).append(info)
            continue
        others[_extension(info.path)] += 1
        if is_image(info.path):
            images.add(stem(info.path))
    return files, others, images


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
    if found == "imagefolder":
        beside = (f"{stem(path)}.{extension}" for extension in (CAPTION, METADATA))
        infos = (location.storage.info(name) for name in (path, *beside))
        return Listing(location, found, image_files(filter(None, infos))[0], [])
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
    images = [name for name in others if is_image(f"x{name}")]
    if format is None and images:
        return SourceError(
            f"{storage.uri}: holds images ({_counts(Counter({name: others[name] for name in images}))}); if they are "
            "what is to be embedded, write source.format: imagefolder (--format imagefolder)"
        )
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
    if beside or (images and others and not (tars or tables) and _belong_to(images, others)):
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


def _extension(path: str) -> str:
    name = path.lower()
    compressed = next((extension for extension in _COMPRESSED_TARS if name.endswith(extension)), None)
    return compressed or os.path.splitext(path)[1] or "no extension"


def visible(
    infos: Iterable[FileInfo],
    storage: Storage,
    leave_out: Sequence[str],
    hidden: list[str],
    format: str | None = None,
) -> Iterator[FileInfo]:
    """Drop output roots, and what is hidden by its name, which is appended to `hidden`.

    A photograph may well be named `_DSC0001.jpg`, as cameras do it.
    """
    marks = (".", "__") if format == "imagefolder" else (".", "_")
    prefixes = tuple(f"{path}/" for root in leave_out for path in _below(root, storage.uri))
    for info in infos:
        if prefixes and info.path.startswith(prefixes):
            continue
        if any(part.startswith(marks) for part in info.path.split("/")):
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
