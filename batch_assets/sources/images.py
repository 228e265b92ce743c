"""Images as records: in which column of a file they are, and what is wrong with one that is none.

Here an image is a whole file, or where one is to be fetched from. What is inside the file, and
the fetching, are the business of whoever does the work.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batch_assets.errors import ConfigurationError
from batch_assets.sources.base import Fault, RecordRules
from batch_assets.sources.column_types import is_bytes, is_text
from batch_assets.sources.image_metadata import JSON_OWN
from batch_assets.sources.shards import is_shards
from batch_assets.sources.value_texts import text_array
from batch_assets.storage import is_local

# What img2dataset's users know by these names; everything else that they have is metadata of it.
PLAIN_COLUMNS = ("key", "caption", "url")
STATUS, ERROR_MESSAGE, SUCCESS = "status", "error_message", "success"

IMAGE_EXTENSIONS = (
    "jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff", "jp2",
    "jpe", "jfif", "ppm", "pgm", "pbm", "pnm", "j2k", "qoi", "dib", "ico", "img",
)  # fmt: skip
"""Of a file that is an image by its name; what it really is, and whether it can be read, its bytes tell."""

_BYTES_COLUMNS = ("jpg", "jpeg", "png", "webp", "image")
_PLACE_COLUMNS = ("url", "image", "path")


def meta_name(name: str) -> str:
    """The output's name of a column of img2dataset's shards, or of what stands beside an image.

    What an image's JSON says by a name of the image's own, `json.key`, is `meta_key`.
    """
    if name in PLAIN_COLUMNS:
        return name
    own = name.removeprefix(JSON_OWN)
    return f"meta_{own if own in PLAIN_COLUMNS else name}"


@dataclass(frozen=True)
class ImageColumns:
    """Where records hold images: in the column that is `named`; in Parquet files also in the first that looks like it.

    `downloads`: the rows are img2dataset's, whose status says whether there is an image at all.
    """

    named: str | None = None
    downloads: bool = False

    def find(self, schema: pa.Schema, uri: str) -> "FileImages":
        """The images of a file with this schema. Raises ConfigurationError where it has none."""
        column = self._column(schema, uri)
        found = schema.field(column).type
        whole = holds_files(found) or pa.types.is_null(found)
        others = frozenset(field.name for field in schema if is_made_of_files(field.type)) - {column}
        return FileImages(column, whole, self.downloads, folder_of(uri), others)

    def _column(self, schema: pa.Schema, uri: str) -> str:
        names = schema.names
        if self.named is not None:
            if self.named not in names:
                raise ConfigurationError(
                    f"source.image_column: {uri} has no column {self.named!r}; its columns are "
                    f"{', '.join(map(repr, names))}; name one of them"
                )
            found = _plain(schema.field(self.named).type)
            if not (holds_files(found) or is_text(found) or pa.types.is_null(found)):
                raise ConfigurationError(
                    f"source.image_column: {self.named!r} of {uri} holds {found}, neither files as bytes nor "
                    "places as text; name another column"
                )
            return self.named
        types = {name: _plain(schema.field(name).type) for name in names}
        candidates = [name for name in _BYTES_COLUMNS if name in types and holds_files(types[name])]
        candidates += [name for name in _PLACE_COLUMNS if name in types and is_text(types[name])]
        # Where nothing was downloaded, or nobody said of what type: every image is missing.
        candidates += [name for name in _BYTES_COLUMNS if name in types and pa.types.is_null(types[name])]
        if not candidates:
            raise ConfigurationError(
                f"source.image_column: {uri} holds images in none of the usual columns "
                f"({', '.join((*_BYTES_COLUMNS, 'url', 'path'))}); its columns are "
                f"{', '.join(map(repr, names))}; name the one with the images"
            )
        return candidates[0]


@dataclass(frozen=True)
class FileImages:
    """The images of one Parquet file: in which column they are, and whether as `whole` files or as places.

    `folder` is what relative places may be relative to, if it is one of this machine. `others` are
    the other columns of whole files, such as masks and thumbnails.
    """

    column: str
    whole: bool
    downloads: bool
    folder: str | None
    others: frozenset[str] = frozenset()

    def wanted(self, contents: bool) -> set[str]:
        """The columns to read. Places are read in any case, since they are short: some may be missing."""
        columns = {STATUS, ERROR_MESSAGE} if self.downloads else set[str]()
        return columns | ({self.column} if contents or not self.whole else set())

    def unread(self, contents: bool) -> frozenset[str]:
        """The columns not to read, whatever names they have."""
        return frozenset({self.column}) if self.whole and not contents else frozenset()

    def read(
        self, batch: pa.RecordBatch, readable: Mapping[str, pa.Array], rules: RecordRules
    ) -> tuple[list[bytes | str | None] | None, dict[int, Fault]]:
        """The images of some rows, None where only the rows' structure is asked for; and what is wrong with some.

        `readable` are the batch's other columns, their text checked.
        """
        faults: dict[int, Fault] = {}
        images: list[bytes | str | None] | None = None
        if self.column in batch.schema.names:
            column = batch.column(self.column) if self.whole else readable[self.column]
            images = [self._found(image) for image in _values(column)]
            for index, image in enumerate(images):
                if (fault := image_fault(image, rules.longest)) is not None:
                    faults[index] = fault
        if self.downloads and STATUS in readable:
            nothing = pa.nulls(len(batch), pa.string())
            messages = text_array(readable.get(ERROR_MESSAGE, nothing)).to_pylist()
            for index, status in enumerate(text_array(readable[STATUS]).to_pylist()):
                if (fault := download_fault(status, messages[index])) is not None:
                    faults[index] = fault
        return images if rules.contents else None, faults

    def _found(self, image: bytes | str | None) -> bytes | str | None:
        return absolute_place(image, self.folder) if isinstance(image, str) else image


def holds_files(data_type: pa.DataType) -> bool:
    """Whether a column's values are whole files: bytes, or a struct with them, as Hugging Face writes it.

    Such a struct may have a `path` in place of its bytes, also in all rows.
    """
    data_type = _plain(data_type)
    if pa.types.is_struct(data_type):
        fields = {field.name: field.type for field in data_type}
        return _is_file(fields.get("bytes", pa.null())) or is_text(fields.get("path", pa.null()))
    return _is_file(data_type)


def _is_file(data_type: pa.DataType) -> bool:
    """Whether values may be whole files, which are not all of one size."""
    return is_bytes(data_type) and not pa.types.is_fixed_size_binary(data_type)


def is_made_of_files(data_type: pa.DataType) -> bool:
    """Whether a column holds nothing but whole files, or lists of them. A digest, of a fixed size, is none."""
    data_type = _plain(data_type)
    if pa.types.is_list(data_type) or pa.types.is_large_list(data_type):
        return is_made_of_files(data_type.value_type)
    if pa.types.is_struct(data_type) and not {field.name for field in data_type} <= {"bytes", "path"}:
        return False
    return holds_files(data_type)


def _values(array: pa.Array) -> list[bytes | str | None]:
    """A column's images: of a struct its bytes, else its path."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    if not pa.types.is_struct(array.type):
        return array.to_pylist()
    names = [field.name for field in array.type]
    contents, places = (
        array.field(name).to_pylist() if name in names else [None] * len(array) for name in ("bytes", "path")
    )
    valid = array.is_valid().to_pylist()
    return [(a or b) if v else None for a, b, v in zip(contents, places, valid, strict=True)]


def image_fault(image: bytes | str | None, longest: int) -> Fault | None:
    """What is wrong with an image before anybody looks into it."""
    if image is None:
        return Fault("no_image", "the image is null")
    if not image:
        return empty_image()
    if isinstance(image, bytes) and len(image) > longest:
        return image_too_large(len(image), longest)
    return None


def empty_image() -> Fault:
    """The fault of a file without a byte, or of a place that is an empty text."""
    return Fault("no_image", "the image is empty")


def image_too_large(size: int, longest: int) -> Fault:
    """The fault of an image file of `size` bytes."""
    return Fault("image_too_large", f"{size:,} bytes; shards.max_record_bytes allows {longest:,}")


def download_fault(status: Any, message: Any) -> Fault | None:
    """Why img2dataset has no image for a row, by its status and error message."""
    if status is None or status == SUCCESS:
        return None
    return Fault("not_downloaded", f"status {status!r}" + (f": {str(message)[:300]}" if message else ""))


def folder_of(uri: str) -> str | None:
    """What relative places in a file may be relative to, if it is a folder of this machine."""
    return os.path.dirname(uri) if is_local(uri) and not is_shards(uri) else None


def absolute_place(place: str, folder: str | None) -> str:
    """A relative path, made absolute where `folder` holds such a file; any other place as it is."""
    if folder is None or not place or "://" in place or "\0" in place or os.path.isabs(place):
        return place
    path = os.path.normpath(os.path.join(folder, place))
    return path if os.path.isfile(path) else place


def _plain(data_type: pa.DataType) -> pa.DataType:
    if isinstance(data_type, pa.BaseExtensionType):
        data_type = data_type.storage_type
    return data_type.value_type if pa.types.is_dictionary(data_type) else data_type
