"""Which files a source consists of: of one format, in the order of their paths, with what is left out."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.sources.files import COMPRESSIONS
from batch_assets.sources.shards import ShardStorage, is_shards, normalize_source, open_source
from batch_assets.storage import FileInfo, Storage, is_local, normalize_uri, open_storage

EXTENSIONS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


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
    uri = normalize_source(uri)
    if is_shards(uri):
        return Location(open_source(uri), None)
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
        return None if format == "parquet" else format
    return EXTENSIONS.get(extension)


def list_source(
    uri: str, format: str | None, leave_out: Sequence[str] = (), pipeline: str | None = None
) -> Listing:
    """List the files of a source. Files under the URIs in `leave_out` (the output root) are no part of it.

    `pipeline` is the one whose shards `uri` means, if it does.

    Raises SourceError where there is none, ConfigurationError where `format` must be named.
    """
    location = locate(uri)
    storage, single = location.storage, location.single
    if single is not None:
        info = storage.info(single)
        found = format or format_of(single)
        if found is None:
            known = ", ".join(EXTENSIONS)
            raise ConfigurationError(
                f"source.uri: {uri!r} tells no format by its name ({known}); name source.format"
            )
        return Listing(location, found, [info] if info is not None else [], [])
    for root in leave_out:
        if normalize_uri(root) == storage.uri:
            raise ConfigurationError(
                f"output.root: {root!r} is the source's own folder; name a folder of its own"
            )
    hidden: list[str] = []
    others: Counter[str] = Counter()
    files: dict[str, list[FileInfo]] = {}
    try:
        for info in visible(storage.list(), storage, leave_out, hidden):
            if (found := format_of(info.path)) is None:
                others[os.path.splitext(info.path)[1] or "no extension"] += 1
            else:
                files.setdefault(found, []).append(info)
    except PermissionError as error:
        raise SourceError(f"{error.filename}: cannot be listed; allow it, or move the folder away") from None
    if format is None and len(files) > 1:
        kinds = ", ".join(f"{kind} ({len(infos):,} files)" for kind, infos in sorted(files.items()))
        raise ConfigurationError(f"source.format: {storage.uri} holds {kinds}; name one")
    chosen = format or next(iter(files), None)
    left_out = [f"{sum(others.values()):,} files of other extensions ({_counts(others)})"] if others else []
    left_out += [f"{len(infos):,} {kind} files" for kind, infos in files.items() if kind != chosen]
    if hidden:
        left_out.append(
            f"{len(hidden):,} files with a name or folder that begins with '.' or '_', such as {hidden[0]}"
        )
    if isinstance(storage, ShardStorage) and not files:
        raise SourceError(
            f"source.pipeline: {pipeline!r} has no committed shard under {storage.root.uri} yet; "
            f"`batch-assets run {pipeline}` makes them"
        )
    if chosen is None or not files.get(chosen):
        wanted = f"{format} files" if format else f"files ending in {', '.join(EXTENSIONS)}"
        rest = f"; there are {', '.join(left_out)}" if left_out else "; is the path right?"
        raise SourceError(f"{storage.uri}: no {wanted} found{rest}")
    return Listing(location, chosen, sorted(files[chosen], key=lambda info: info.path), left_out)


def visible(
    infos: Iterable[FileInfo], storage: Storage, leave_out: Sequence[str], hidden: list[str]
) -> Iterator[FileInfo]:
    """Drop output roots, and what is hidden by its name, which is appended to `hidden`."""
    roots = [_below(root, storage.uri) for root in leave_out]
    prefixes = tuple(root + "/" for root in roots if root)
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


def _below(root: str, uri: str) -> str | None:
    """The path of `root` relative to `uri`, or None where it lies elsewhere."""
    root = normalize_uri(root)
    uri = uri.rstrip("/")
    return root[len(uri) + 1 :] if root.startswith(uri + "/") else None


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counter.most_common(3))
