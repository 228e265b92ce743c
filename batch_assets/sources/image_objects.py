"""Images of JSON and CSV records: a column says where each is, or holds the file itself as a data: URL."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from batch_assets.sources.base import BATCH_BYTES, BATCH_RECORDS, FETCHED_BYTES, Fault, RecordRules, Records
from batch_assets.sources.images import ImageColumns, absolute_place, folder_of, image_fault
from batch_assets.sources.json_values import shown
from batch_assets.sources.records import RecordBuilder
from batch_assets.sources.texts import kind_of
from batch_assets.storage import Storage, join_uri


@dataclass(frozen=True)
class ObjectImages:
    """The images of JSON or CSV records: places in `column`, or the files themselves as data: URLs."""

    column: str
    folder: str | None

    def read(
        self, objects: Sequence[Mapping[str, Any] | Fault], rules: RecordRules
    ) -> tuple[list[bytes | str | None] | None, dict[int, Fault]]:
        """The images of some records, None where only their structure is asked for; and what is wrong with some."""
        images: list[bytes | str | None] = [None] * len(objects)
        faults: dict[int, Fault] = {}
        for index, item in enumerate(objects):
            if isinstance(item, Fault):
                continue
            found = self._found(item.get(self.column))
            fault = found if isinstance(found, Fault) else image_fault(found, rules.longest)
            if fault is not None:
                faults[index] = fault
            elif not isinstance(found, Fault):
                images[index] = found
        return images if rules.contents else None, faults

    def _found(self, value: Any) -> bytes | str | Fault | None:
        if value is None:
            return None
        if not isinstance(value, str):
            return Fault(
                "bad_url",
                f"column {self.column!r} holds {kind_of(value)}, which is no text; write a path or URL",
            )
        return _data_url(value) if value[:5].lower() == "data:" else absolute_place(value, self.folder)


def _data_url(url: str) -> bytes | Fault:
    """The file in a data: URL (RFC 2397)."""
    head, comma, data = url.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise ValueError("it is not in base64")
        return base64.b64decode(unquote(data), validate=True)
    except ValueError as error:
        return Fault("bad_url", f"the data: URL {shown(url[:100].encode())} cannot be read: {error}")


def images_of(columns: ImageColumns | None, storage: Storage, path: str) -> ObjectImages | None:
    """The images of a file's records; None where records are texts."""
    if columns is None:
        return None
    assert columns.named is not None, "only a name tells which column of a text file has images"
    return ObjectImages(columns.named, folder_of(join_uri(storage.uri, path)))


def most_records(images: ObjectImages | None) -> int:
    """How many records a batch has at most: an image that is still to be fetched has its size, too."""
    return BATCH_RECORDS if images is None else BATCH_BYTES // FETCHED_BYTES


def build_objects(
    builder: RecordBuilder,
    rows: Sequence[int],
    objects: Sequence[dict[str, Any] | Fault],
    images: ObjectImages | None,
) -> Records:
    """Records from parsed JSON objects; of `images`, with where each is."""
    if images is None:
        return builder.from_objects(rows, objects)
    found, faults = images.read(objects, builder.rules)
    return builder.from_objects(rows, objects, faults, found)
