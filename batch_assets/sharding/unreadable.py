"""The files of a source that no plan can read: left out, each under its version, until they are mended.

What makes a file one of them is for its reader to say (`errors.UnreadableFile`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from batch_assets import paths
from batch_assets.plain_text import plain_text
from batch_assets.storage import Storage

_NAMED = 5


@dataclass(frozen=True)
class Unreadable:
    """A file as it was listed, and why it cannot be read."""

    path: str
    version: str
    reason: str


def write_unreadable(root: Storage, files: Sequence[Unreadable]) -> None:
    """Note what the last planning round has left out; nothing is written where it is noted already."""
    if files != read_unreadable(root):
        text = json.dumps(
            [asdict(file) for file in files], indent=1
        )  # also names that are no UTF-8, as ASCII
        root.write(paths.UNREADABLE, text.encode("ascii"))


def read_unreadable(root: Storage) -> list[Unreadable]:
    """What the last planning round has left out."""
    found = root.read_versioned(paths.UNREADABLE)
    return [] if found is None else [Unreadable(**file) for file in json.loads(found[0])]


def versions(files: Sequence[Unreadable]) -> Mapping[str, str]:
    """The version of each, by path."""
    return {file.path: file.version for file in files}


def describe_unreadable(files: Sequence[Unreadable]) -> str:
    """A sentence on them, with the reasons of the first."""
    named = "; ".join(file.reason for file in files[:_NAMED])
    more = f"; and {len(files) - _NAMED:,} more, listed in {paths.UNREADABLE}" if len(files) > _NAMED else ""
    return plain_text(
        f"{len(files):,} files cannot be read, so none of their records is planned or counted: {named}{more}; the "
        "next plan takes in what has been mended"
    )
