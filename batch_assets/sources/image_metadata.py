"""What stands beside an image in files of its own (JSON, caption, label), as the values of its record.

What cannot be read costs its own columns, never the image. Which files belong to which image is the
business of `samples.py` (tars) and `image_folder.py` (folders).
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from batch_assets.plain_text import plain_logger
from batch_assets.sources.base import Fault
from batch_assets.sources.columns import ColumnScan
from batch_assets.sources.json_values import json_text, shown

logger = plain_logger(__name__)
CAPTION, METADATA, LABEL = "txt", "json", "cls"
"""The extensions of what stands beside an image."""
COLUMNS = {CAPTION: "caption", LABEL: "cls"}
JSON_OWN = "json."
"""Before the names of the JSON that its sample has, too: its own caption is another one than the .txt's."""
_ONCE_MORE = {f"{JSON_OWN}{name}": name for name in ("key", *COLUMNS.values())}


def parse_metadata(data: bytes | Fault) -> Mapping[str, Any] | Fault:
    """The values of a .json; one that is no object has the column `json`."""
    if isinstance(data, Fault):
        return data
    try:
        # Whoever writes metadata by pandas writes NaN for what is missing.
        value = json.loads(data, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return Fault("not_json", f"{reason}: {shown(data)}")
    # Annotations are often a bare list: they are metadata too.
    return value if type(value) is dict else {"json": value}


def parse_text(data: bytes | Fault, extension: str) -> str | int | Fault:
    """A caption, or a label, which may be a number."""
    if isinstance(data, Fault):
        return data
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Fault("invalid_utf8", f"byte {error.start} is no UTF-8 ({error.reason})")
    if extension != LABEL:
        return text
    label = text.strip()
    return int(label) if re.fullmatch(r"[0-9]{1,18}", label) else label


def image_values(
    key: Any, metadata: Mapping[str, Any], texts: Mapping[str, bytes | Fault]
) -> tuple[dict[str, Any], list[str]]:
    """The values of an image: its key, its metadata, and its `texts` by their extensions; and what was lost.

    What the metadata say by a name that the image has of its own is kept as `json.<name>`.
    """
    lost: list[str] = []
    own: dict[str, Any] = {"key": key}
    for extension, data in texts.items():
        text = parse_text(data, extension)
        if isinstance(text, Fault):
            lost.append(f".{extension}: {text.message}")
        own[COLUMNS[extension]] = None if isinstance(text, Fault) else text
    return {
        **own,
        **{f"{JSON_OWN}{name}" if name in own else name: metadata[name] for name in metadata},
    }, lost


def image_line(values: dict[str, Any], longest: int) -> tuple[bytes, list[str]]:
    """The values as a JSON line that can be read again, without those that it has no room or no form for."""
    lost: list[str] = []
    line = _written(values)
    if line is None:
        bad = [name for name, value in values.items() if _written({name: value}) is None]
        lost = [f"{_plain(name)!r} is nested too deeply, or holds half of a surrogate pair" for name in bad]
        values = {name: value for name, value in values.items() if name not in bad}
        line = _written(values) or b"{}"
    if len(line) > longest:
        again = said_again(values)
        values = {name: value for name, value in values.items() if name not in again}
        line = _written(values) or b"{}"
    if len(line) > longest:
        # The longest go first: mostly it is one.
        sizes = {name: len(_written({name: value}) or b"") for name, value in values.items() if name != "key"}
        for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
            lost.append(
                f"{name!r} has {sizes[name]:,} bytes; shards.max_record_bytes allows {longest:,} in all"
            )
            del values[name]
            line = _written(values) or b"{}"
            if len(line) <= longest:
                break
    return line, lost


def said_again(values: Mapping[str, Any]) -> list[str]:
    """The names by which the JSON says no more than what the image has of its own."""
    return [
        name for name, own in _ONCE_MORE.items() if name in values and values[name] in (None, values.get(own))
    ]


def tell_incomplete(uri: str, images: int, example: str) -> None:
    """Say of a file or folder how many of its images are embedded with less beside them than there is."""
    logger.warning(
        "%s: %s images have columns that cannot be read, which are left null; the first is %s",
        uri, f"{images:,}", example[:300],
    )  # fmt: skip


def _written(values: Mapping[str, Any]) -> bytes | None:
    """The JSON line of some values; None where it could not be read again."""
    try:
        line = json_text(values).encode()
        orjson.loads(line)
    except (ValueError, RecursionError):
        return None
    return line


def _plain(name: str) -> str:
    return name.encode(errors="replace").decode()


class ImageScan:
    """Shows the values of images to `columns`, and whether the JSON says anything but what the images' own say.

    There is no second column of keys, nor of captions, where they are the same everywhere, as
    img2dataset writes them.
    """

    def __init__(self, columns: ColumnScan) -> None:
        self._columns = columns

    @property
    def finished(self) -> bool:
        return self._columns.finished

    @property
    def id_column(self) -> str | None:
        return self._columns.id_column

    def add_objects(self, objects: Iterable[Mapping[str, Any]]) -> None:
        objects = list(objects)
        self._columns.add_objects(objects)
        for name in _ONCE_MORE:
            if said := [item for item in objects if name in item]:
                self._columns.repeats(name, all(name in said_again(item) for item in said))
