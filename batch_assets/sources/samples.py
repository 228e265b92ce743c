"""Samples of a webdataset tar: consecutive members of one name up to its first dot, and what they say.

The rule is webdataset's own. Beyond it, nothing is lost: a member whose extension the sample has
already begins another sample.
"""

import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from batch_assets.sources.base import Fault
from batch_assets.sources.image_metadata import COLUMNS, METADATA, image_line, image_values, parse_metadata
from batch_assets.sources.images import IMAGE_EXTENSIONS
from batch_assets.sources.json_values import shown, too_large
from batch_assets.sources.tar_files import TarMember

# Of a sample, which is held in memory: a character takes up to four bytes, and a name stands there twice.
_MOST_MEMBERS = 10_000
_MOST_CHARACTERS = 4 * 2**20
_SHOWN_CHARACTERS = 60
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)


@dataclass
class Sample:
    """Members of one name, by what follows its first dot; `texts` are what the readable ones hold.

    `end` is the byte behind the last of them.
    """

    name: str
    end: int = 0
    members: dict[str, TarMember] = field(default_factory=dict)
    texts: dict[str, bytes | Fault] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The name, fit to be stored: tar has names that are no UTF-8."""
        return _storable(self.name.removeprefix("./"))

    @property
    def has_metadata(self) -> bool:
        return METADATA in self.members


def samples(
    members: Iterable[TarMember], read: Callable[[TarMember], bytes], longest: int
) -> Iterator[Sample]:
    """Group members. `read` is asked at once for captions, labels and metadata of at most `longest` bytes.

    Members without an extension, and hidden ones, are passed over. Raises tarfile.ReadError where one
    name goes on and on.
    """
    sample: Sample | None = None
    characters = 0
    for member in members:
        match = _NAME.fullmatch(member.name)
        if match is None:
            continue
        name, extension = match[1], match[2].lower()
        if sample is None or sample.name != name or extension in sample.members:
            if sample is not None:
                yield sample
            sample, characters = Sample(name), 0
        characters += len(member.name)
        if len(sample.members) == _MOST_MEMBERS or characters > _MOST_CHARACTERS:
            raise tarfile.ReadError(
                f"more than {_MOST_MEMBERS:,} files in a row are named {shown(sample.key.encode())} "
                f"up to their first dot, or their names have more than {_MOST_CHARACTERS:,} characters together"
            )
        sample.members[extension] = member
        sample.end = member.offset + member.size
        if extension in (METADATA, *COLUMNS):
            fits = member.size <= longest
            sample.texts[extension] = read(member) if fits else too_large(member.size, longest)
    if sample is not None:
        yield sample


def image_of(sample: Sample, named: str | None = None) -> TarMember | Fault:
    """The sample's image: the member with the extension that is `named`, such as `left.jpg`.

    Without: `<name>.jpg` and its like, else the only one of another name, as `<name>.left.jpg`.
    """
    for extension in IMAGE_EXTENSIONS if named is None else (named,):
        if extension in sample.members:
            return sample.members[extension]
    others = [name for name in sample.members if name.rpartition(".")[2] in IMAGE_EXTENSIONS]
    if len(others) == 1 and named is None:
        return sample.members[others[0]]
    found = ", ".join(f".{_cut(name)}" for name in list(others or sample.members)[:5])
    if named is not None:
        which = f"no .{named}, which source.image_column names"
    elif others:
        which = "several images, of which source.image_column names none"
    else:
        which = "no image"
    return Fault("no_image", f"the sample {shown(sample.key.encode())} has {which}: {found}")


def metadata_of(
    sample: Sample, companion: Callable[[str], Mapping[str, Any] | None], longest: int
) -> tuple[bytes, list[str]]:
    """The sample's metadata as a JSON line of at most `longest` bytes, and what of them was lost.

    Without readable metadata of its own, `companion` is asked for them by the sample's key.
    """
    lost: list[str] = []
    key: Any = sample.key
    found: Mapping[str, Any] | Fault | None = None
    if sample.has_metadata:
        found = parse_metadata(sample.texts[METADATA])
        if isinstance(found, Fault):
            lost.append(f".{METADATA}: {found.message}")
    if found is None or isinstance(found, Fault):
        found = companion(sample.key) or {}
        key = found.get("key", key)  # by which the row was found, maybe without the name's folder
    texts = {extension: sample.texts[extension] for extension in COLUMNS if extension in sample.texts}
    values, unread = image_values(key, found, texts)
    line, unwritten = image_line(values, longest)
    return line, [*lost, *unread, *unwritten]


def _storable(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _cut(extension: str) -> str:
    """An extension, fit for a message."""
    text = _storable(extension[:_SHOWN_CHARACTERS])
    return text + "…" if len(extension) > _SHOWN_CHARACTERS else text
