"""Which format a file's name tells."""

import os

from batch_assets.sources.files import COMPRESSIONS
from batch_assets.sources.image_listing import is_image
from batch_assets.sources.tables.markers import TABLE_FORMATS

EXTENSIONS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".tar": "webdataset",
}
PARQUET_FORMATS = ("parquet", "img2dataset", *TABLE_FORMATS)
_SPOOLED = ("jsonl", "csv")  # what may be compressed
COMPRESSED_TARS = (".tgz", *(f".tar{suffix}" for suffix in (".gz", ".zst", ".bz2", ".xz")))


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
    return format_of(path) == ("parquet" if format in PARQUET_FORMATS else format)


def extension_of(path: str) -> str:
    """A name's ending, as a person is told of it."""
    name = path.lower()
    compressed = next((extension for extension in COMPRESSED_TARS if name.endswith(extension)), None)
    return compressed or os.path.splitext(path)[1] or "no extension"
