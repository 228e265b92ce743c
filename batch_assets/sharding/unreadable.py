"""The files of a source that no plan can read: left out, each under its version, until they are mended.

What makes a file one of them is for its reader to say (`errors.UnreadableFile`).
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields

from batch_assets import paths
from batch_assets.errors import LastingStorageError
from batch_assets.plain_text import plain_text
from batch_assets.storage import FileInfo, Storage, join_uri

_NAMED = 5


@dataclass(frozen=True)
class Unreadable:
    """A file as it was listed, and why it cannot be read; `beside`, the file at fault where that is another one."""

    path: str
    version: str
    reason: str
    beside: str = ""
    beside_version: str = ""

    def is_as_noted(self, info: FileInfo, storage: Storage) -> bool:
        """Whether neither the file, as it is listed now, nor the one beside it has changed."""
        if info.version != self.version or not self.beside:
            return info.version == self.version
        found = storage.info(self.beside)
        return found is not None and found.version == self.beside_version


_FIELD_NAMES = [field.name for field in fields(Unreadable)]


def write_unreadable(root: Storage, files: Sequence[Unreadable]) -> None:
    """Note what the last planning round has left out; nothing is written where it is noted already."""
    if files != read_unreadable_or_none(root):
        # As ASCII, also names that are no UTF-8.
        text = json.dumps([asdict(file) for file in files], indent=1)
        root.write(paths.UNREADABLE, text.encode("ascii"))


def read_unreadable(root: Storage) -> list[Unreadable]:
    """What the last planning round has left out. Raises LastingStorageError where the note of it is damaged."""
    files = read_unreadable_or_none(root)
    if files is None:
        raise LastingStorageError(
            f"{join_uri(root.uri, paths.UNREADABLE)}: is no list of source files as a plan writes it; plan again, "
            "which writes it anew"
        )
    return files


def read_unreadable_or_none(root: Storage) -> list[Unreadable] | None:
    """The same; None where the note is damaged, for a planning round, which writes another one."""
    found = root.read_versioned(paths.UNREADABLE)
    if found is None:
        return []
    try:
        told = json.loads(found[0])
        if not isinstance(told, list):
            return None
        # Another version of the program may say more or less of a file.
        files = [Unreadable(**{name: file[name] for name in _FIELD_NAMES if name in file}) for file in told]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return files if all(isinstance(text, str) for file in files for text in astuple(file)) else None


def still_unreadable(
    noted: Sequence[Unreadable], listed: Mapping[str, FileInfo], looked_at: Collection[str]
) -> list[Unreadable]:
    """Those noted by an earlier round that are `listed` as they were, and that this round had no reason to look at."""
    return [
        file
        for file in noted
        if file.path not in looked_at
        and (info := listed.get(file.path)) is not None
        and info.version == file.version
    ]


def describe_unreadable(files: Sequence[Unreadable]) -> str:
    """A sentence on them, with the reasons of the first."""
    named = "; ".join(file.reason for file in files[:_NAMED])
    more = f"; and {len(files) - _NAMED:,} more, listed in {paths.UNREADABLE}" if len(files) > _NAMED else ""
    return plain_text(
        f"{len(files):,} files cannot be read, so none of their records is planned or counted: {named}{more}; the "
        "next plan takes in what has been mended"
    )
