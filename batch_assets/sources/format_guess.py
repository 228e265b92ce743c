"""Whether a source holds images, and in which format, as the names of its first files tell.

A guess for the command line; a pipeline's YAML names its format.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import islice

from batch_assets.sources.formats import format_of, is_of_format
from batch_assets.sources.image_listing import is_image, stem
from batch_assets.sources.listing import belong_to_images, locate
from batch_assets.sources.visibility import visible
from batch_assets.storage import FileInfo, Storage

_NAMES_LOOKED_AT = 1_000


def guess_format(uri: str, leave_out: Sequence[str] = (), *, tables: bool = False) -> str | None:
    """The format of images that a file or folder seems to hold: webdataset, img2dataset, imagefolder, or None.

    Its first names tell: tars; Parquet files with img2dataset's statistics beside one; images, in the folder of
    a Parquet file's name or with nothing else that could be meant. With `tables`, any Parquet files come
    before images elsewhere. Files under the URIs in `leave_out` are no part of it.
    """
    try:
        names = {info.path for info in _first_files(uri, leave_out)}
    except PermissionError:  # told when the source is listed
        return None
    if any(format_of(name) == "webdataset" for name in names):
        return "webdataset"
    images = [name for name in names if is_image(name)]
    # img2dataset's `files`: the images of 00000.parquet lie in 00000/.
    if any(f"{os.path.dirname(name)}.parquet" in names for name in images):
        return "imagefolder"
    known = any(os.path.splitext(name)[0] + "_stats.json" in names for name in names if ".parquet" in name)
    if known or (tables and any(format_of(name) == "parquet" for name in names)):
        return "img2dataset"
    return "imagefolder" if images and belong_to_images({stem(name) for name in images}, names) else None


def first_of_format(uri: str, format: str, leave_out: Sequence[str] = ()) -> tuple[Storage, str] | None:
    """The first file of a format in a source, with its storage; None where its first files are of others."""
    for info in _first_files(uri, leave_out):
        if is_of_format(info.path, format):
            return locate(uri).storage, info.path
    return None


def _first_files(uri: str, leave_out: Sequence[str]) -> Iterator[FileInfo]:
    location = locate(uri)
    storage, single = location.storage, location.single
    infos = storage.list() if single is None else filter(None, [storage.info(single)])
    for info in islice(visible(infos, storage, leave_out, [], "imagefolder"), _NAMES_LOOKED_AT):
        if is_image(info.path) or not any(part.startswith("_") for part in info.path.split("/")):
            yield info
