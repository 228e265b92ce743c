"""Which files of a folder are images, and what stands beside each: a caption, metadata, a table of them.

Names and versions only; what the files say is read in `image_folder.py`. An image's version tells
those of the files beside it, too, so that a plan knows without a look which there are, and notices
where one is added or changed. A table (`metadata.jsonl` or `metadata.csv`, as Hugging Face's imagefolder
has it) is only named: it grows with every image that is added to the folder.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import orjson

from batch_assets.sources.image_metadata import CAPTION, METADATA
from batch_assets.sources.images import IMAGE_EXTENSIONS
from batch_assets.storage import FileInfo

TABLES = ("metadata.csv", "metadata.jsonl")
_TABLE = "table"


@dataclass(frozen=True)
class PlannedImage:
    """An image file's own version, (size, version) of those beside it by extension, and the path of its table."""

    version: str
    beside: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    table: str | None = None

    @classmethod
    def of(cls, told: str) -> "PlannedImage":
        """What the version of a listed image tells."""
        if not told.startswith("{"):
            return cls(told)
        content = orjson.loads(told)
        version, table = content.pop("image"), content.pop(_TABLE, None)
        return cls(version, {extension: (size, of) for extension, (size, of) in content.items()}, table)

    def told(self) -> str:
        """The version of a listed image: the file's own where there is nothing beside it."""
        table = {} if self.table is None else {_TABLE: self.table}
        if not (self.beside or table):
            return self.version
        return orjson.dumps({"image": self.version, **self.beside, **table}).decode()


def is_image(path: str) -> bool:
    """Whether a file is an image by its name."""
    return _extension(path) in IMAGE_EXTENSIONS


def stem(path: str) -> str:
    """The path without its extension, which an image shares with the files beside it."""
    return os.path.splitext(path)[0]


def image_files(infos: Iterable[FileInfo]) -> tuple[list[FileInfo], list[str]]:
    """The images among a folder's files, and the paths of those that neither are images nor belong to one."""
    images: list[FileInfo] = []
    beside: dict[str, dict[str, FileInfo]] = {}
    tables: dict[str, str] = {}
    others: list[str] = []
    for info in infos:
        extension = _extension(info.path)
        folder, _, name = info.path.rpartition("/")
        if extension in IMAGE_EXTENSIONS:
            images.append(info)
        elif extension in (CAPTION, METADATA):
            beside.setdefault(stem(info.path), {})[extension] = info
        elif name in TABLES:
            tables[folder] = info.path
        else:
            others.append(info.path)
    owners = {stem(info.path) for info in images} & beside.keys()
    others += [info.path for name in beside.keys() - owners for info in beside[name].values()]
    found = [
        replace(
            info,
            version=PlannedImage(
                info.version,
                {
                    extension: (one.size, one.version)
                    for extension, one in beside.get(stem(info.path), {}).items()
                },
                _table_of(info.path, tables),
            ).told(),
        )
        for info in images
    ]
    return found, others


def _table_of(path: str, tables: Mapping[str, str]) -> str | None:
    """The table in the nearest folder above an image."""
    folder = path
    while tables and folder:
        folder = folder.rpartition("/")[0]
        if folder in tables:
            return tables[folder]
    return None


def _extension(path: str) -> str:
    return os.path.splitext(path)[1].lower().removeprefix(".")
