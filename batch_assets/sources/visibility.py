"""Which of the files under a source are seen at all: not output roots, nor what is hidden by its name."""

from collections.abc import Iterable, Iterator, Sequence

from batch_assets.sources.foreign import matches
from batch_assets.storage import FileInfo, Storage, normalize_uri, real_uri


def outside(infos: Iterable[FileInfo], storage: Storage, leave_out: Sequence[str]) -> Iterator[FileInfo]:
    """Drop the files under the URIs in `leave_out`: output roots."""
    prefixes = tuple(f"{path}/" for root in leave_out for path in paths_below(root, storage.uri))
    return (info for info in infos if not prefixes or not info.path.startswith(prefixes))


def excluding(infos: Iterable[FileInfo], patterns: Sequence[str], excluded: list[str]) -> Iterator[FileInfo]:
    """Drop what a source's own patterns leave out, which is appended to `excluded`."""
    for info in infos:
        if matches(info.path, patterns):
            excluded.append(info.path)
        else:
            yield info


def visible(
    infos: Iterable[FileInfo],
    storage: Storage,
    leave_out: Sequence[str],
    hidden: list[str],
    format: str | None = None,
    misnamed: list[FileInfo] | None = None,
) -> Iterator[FileInfo]:
    """Drop output roots, what is hidden by its name, which is appended to `hidden`, and what has no name in UTF-8.

    The latter is appended to `misnamed`: no plan can be written of it.
    """
    for info in outside(infos, storage, leave_out):
        if is_hidden(info.path, format):
            hidden.append(info.path)
            continue
        if is_utf8(info.path):
            yield info
        elif misnamed is not None:
            misnamed.append(info)


def is_utf8(path: str) -> bool:
    """Whether the name that a disk gave is text, and no other bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_hidden(path: str, format: str | None = None) -> bool:
    """Whether a name or folder in a path begins with one of the `hiding` marks."""
    return any(part.startswith(hiding(format)) for part in path.split("/"))


def hiding(format: str | None) -> tuple[str, str]:
    """What the names of hidden files begin with. A photograph may well be named `_DSC0001.jpg`, as cameras do it."""
    return (".", "__") if format == "imagefolder" else (".", "_")


def paths_below(uri: str, root: str) -> set[str]:
    """The paths of `uri` relative to `root`, as they are spelled and as links lead; none where it lies elsewhere."""
    spelled = (normalize_uri(uri), normalize_uri(root)), (real_uri(uri), real_uri(root))
    return {
        one.removeprefix(folder.rstrip("/") + "/")
        for one, folder in spelled
        if one.startswith(folder.rstrip("/") + "/")
    }
