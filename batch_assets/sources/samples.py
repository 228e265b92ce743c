"""Samples of a webdataset tar: consecutive members of one name up to its first dot, and what they say.

The rule is webdataset's own. Beyond it, nothing is lost: a member whose extension the sample has
already begins another sample.
"""

import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from batch_assets.sources.base import Fault
from batch_assets.sources.json_values import json_text, shown, too_large
from batch_assets.sources.tar_files import TarMember

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff", "jp2")
_CAPTION, _METADATA, _LABEL = "txt", "json", "cls"
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
        return _METADATA in self.members


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
        if extension in (_CAPTION, _METADATA, _LABEL):
            fits = member.size <= longest
            sample.texts[extension] = read(member) if fits else too_large(member.size, longest)
    if sample is not None:
        yield sample


def image_of(sample: Sample) -> TarMember | Fault:
    """The sample's image: `<name>.jpg` and its like, else the only one of another name, as `<name>.left.jpg`."""
    for extension in IMAGE_EXTENSIONS:
        if extension in sample.members:
            return sample.members[extension]
    others = [name for name in sample.members if name.rpartition(".")[2] in IMAGE_EXTENSIONS]
    if len(others) == 1:
        return sample.members[others[0]]
    found = ", ".join(f".{_cut(name)}" for name in list(others or sample.members)[:5])
    which = "several images and does not say which" if others else "no image"
    return Fault("no_image", f"the sample {shown(sample.key.encode())} has {which}: {found}")


def metadata_of(sample: Sample, companion: Callable[[str], Mapping[str, Any] | None]) -> bytes | Fault:
    """The sample's metadata as a JSON line: key, caption, url, then whatever else there is.

    Without metadata of its own, `companion` is asked for them by the sample's key.
    """
    found: Mapping[str, Any] | Fault | None
    found = _parse(sample.texts[_METADATA]) if sample.has_metadata else companion(sample.key)
    if isinstance(found, Fault):
        return found
    values: dict[str, Any] = {"key": sample.key, **(found or {})}
    for extension, name in ((_CAPTION, "caption"), (_LABEL, "cls")):
        if extension in sample.texts:
            text = _text(sample.texts[extension], extension)
            if isinstance(text, Fault):
                return text
            values[name] = text
    try:
        return json_text(values).encode()
    except RecursionError:
        return Fault("not_json", "the sample's .json is nested too deeply to be stored")
    except UnicodeEncodeError:
        return Fault(
            "lone_surrogate", "the sample's .json has half of a surrogate pair, which is no character"
        )


def _storable(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _cut(extension: str) -> str:
    """An extension, fit for a message."""
    text = _storable(extension[:_SHOWN_CHARACTERS])
    return text + "…" if len(extension) > _SHOWN_CHARACTERS else text


def _parse(data: bytes | Fault) -> Mapping[str, Any] | Fault:
    if isinstance(data, Fault):
        return data
    try:
        # Whoever writes metadata by pandas writes NaN for what is missing.
        value = json.loads(data, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return Fault("not_json", f"the sample's .json: {reason}: {shown(data)}")
    # Annotations are often a bare list: they are metadata too.
    return value if type(value) is dict else {"json": value}


def _text(data: bytes | Fault, extension: str) -> str | int | Fault:
    if isinstance(data, Fault):
        return data
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Fault(
            "invalid_utf8", f"byte {error.start} of the sample's .{extension} is no UTF-8 ({error.reason})"
        )
    if extension != _LABEL:
        return text
    label = text.strip()
    return int(label) if re.fullmatch(r"[0-9]{1,18}", label) else label
