"""A picture of what a model finds alike: some published images, each beside its nearest neighbours.

Made of a bounded part of the dataset, within a bounded time, and never a reason to fail: what
cannot be shown is left out, and the sheet says so. How a picture gets into Dagster's metadata is
in `orchestration/pictures.py`.
"""

import io
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_assets.control.pipeline import Pipeline
from batch_assets.control.published_rows import published_files
from batch_assets.embeddings.parquet_files import VECTOR_BATCH, open_parquet
from batch_assets.embeddings.schema import EMBEDDING
from batch_assets.encoders.image_files import BadImage, open_image, set_up
from batch_assets.merge.base import Manifest
from batch_assets.plain_text import plain_logger
from batch_assets.sharding.reading import read_rows
from batch_assets.worker.fetching import Fetcher, Fetching

QUERIES, NEIGHBOURS = 3, 6
ROWS = 10_000
SECONDS = 30.0
FETCHES = 6
SIDE, GAP, LABEL = 112, 6, 16
MOST_BYTES = 72_000  # Dagster stores it in an event's row, as base64, which takes a third more
logger = plain_logger(__name__)


@dataclass(frozen=True)
class ContactSheet:
    """A JPEG, empty where none could be made; `notes` say of which images it is, and what is left out."""

    jpeg: bytes
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Place:
    """Where a published row's image was read."""

    shard: str
    source_file: str
    source_row: int


@dataclass(frozen=True)
class _Row:
    """One line of the sheet: positions of a query image and of those nearest to it, with their cosines."""

    query: int
    neighbours: list[tuple[int, float]]


def make_contact_sheet(pipeline: Pipeline, manifest: Manifest) -> ContactSheet:
    """The contact sheet of a version of a pipeline of images. Never raises.

    Neighbours are looked for among the version's first `ROWS` rows; `SECONDS` is what reading
    the images may take.
    """
    try:
        return _make(pipeline, manifest, time.monotonic() + SECONDS)
    except ImportError:
        return ContactSheet(b"", ["no picture: Pillow is not installed where this run is (extra gpu)"])
    except Exception as error:
        logger.warning("no contact sheet of %s: %s: %s", manifest.version, type(error).__name__, error)
        return ContactSheet(b"", [f"no picture could be made: {type(error).__name__}: {error}"])


def _make(pipeline: Pipeline, manifest: Manifest, deadline: float) -> ContactSheet:
    places, vectors = _first_rows(pipeline, manifest)
    rows = _nearest(vectors)
    wanted = list(
        dict.fromkeys(each for row in rows for each in (row.query, *(one for one, _ in row.neighbours)))
    )
    notes = [
        f"{len(rows)} of the {'first ' if len(places) < manifest.rows else ''}{len(places):,} images, on the left, "
        "each with those nearest to it and their cosines"
    ]
    contents, problems = _read(pipeline, {each: places[each] for each in wanted}, deadline)
    thumbnails: dict[int, Any] = {}
    most_pixels = pipeline.settings.source.max_image_pixels
    set_up(most_pixels)
    for position, content in contents.items():
        try:
            thumbnails[position] = _thumbnail(content, most_pixels)
        except BadImage as error:
            problems.append(f"{places[position].source_file}: {error}")
    if missing := len(wanted) - len(thumbnails):
        reasons = "; ".join(dict.fromkeys(problems)) or f"not read within {SECONDS:g} s"
        notes.append(f"{missing} of {len(wanted)} images could not be shown: {reasons[:500]}")
    return ContactSheet(_draw(rows, thumbnails) if thumbnails else b"", notes)


def _first_rows(pipeline: Pipeline, manifest: Manifest) -> tuple[list[_Place], npt.NDArray[np.float32]]:
    """Places and vectors (n, dimensions), of length 1 or 0, of the first rows."""
    places: list[_Place] = []
    batches: list[npt.NDArray[np.float32]] = []
    columns = ["source_file", "source_row", EMBEDDING]
    for shard, path in published_files(pipeline, manifest):
        with open_parquet(pipeline.storage, path) as file:
            for whole in file.iter_batches(VECTOR_BATCH, columns=columns, use_threads=False):
                batch = whole.slice(0, ROWS - len(places))
                files, numbers = (batch.column(name).to_pylist() for name in columns[:2])
                places += [_Place(shard, *one) for one in zip(files, numbers, strict=True)]
                column: pa.FixedSizeListArray = batch.column(EMBEDDING)
                flat = column.flatten().to_numpy().astype(np.float32)
                batches.append(flat.reshape(-1, column.type.list_size))
                if len(places) == ROWS:
                    break
        if len(places) == ROWS:
            break
    vectors = np.concatenate(batches)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return places, vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


def _nearest(vectors: npt.NDArray[np.float32]) -> list[_Row]:
    """Queries spread evenly over the rows, each with its neighbours, nearest first."""
    count = len(vectors)
    rows: list[_Row] = []
    for query in sorted({(2 * number + 1) * count // (2 * QUERIES) for number in range(QUERIES)}):
        cosines = vectors @ vectors[query]
        cosines[query] = -np.inf
        best = np.argsort(-cosines, kind="stable")[: min(NEIGHBOURS, count - 1)]
        rows.append(_Row(query, [(int(one), float(cosines[one])) for one in best]))
    return rows


def _read(
    pipeline: Pipeline, places: Mapping[int, _Place], deadline: float
) -> tuple[dict[int, bytes], list[str]]:
    """The image files of some rows, as far as they can be had in time, and why others cannot."""
    problems: list[str] = []
    contents: dict[int, bytes] = {}
    locations: dict[int, str] = {}
    positions = {place: position for position, place in places.items()}
    shards = pipeline.plan_shards(dict.fromkeys(place.shard for place in positions))
    for key, shard in shards.items():
        if time.monotonic() > deadline:
            break
        wanted = {(place.source_file, place.source_row) for place in positions if place.shard == key}
        try:
            found = read_rows(pipeline.settings, shard, wanted, pipeline.summary_of(key), pipeline.storage)
        except Exception as error:  # a source may be gone since: the others are shown
            problems.append(f"{type(error).__name__}: {error}")
            continue
        for (source_file, source_row), (image, _) in found.items():
            position = positions[_Place(key, source_file, source_row)]
            if isinstance(image, str):
                locations[position] = image
            elif image is not None:
                contents[position] = image
    contents |= _fetch(pipeline, locations, deadline, problems)
    return contents, problems


def _fetch(
    pipeline: Pipeline, locations: Mapping[int, str], deadline: float, problems: list[str]
) -> dict[int, bytes]:
    settings = pipeline.settings
    fetcher = Fetcher(Fetching.of(settings))
    contents: dict[int, bytes] = {}
    with ThreadPoolExecutor(FETCHES, "contact_sheet") as pool:
        running = {position: pool.submit(fetcher.fetch, each) for position, each in locations.items()}
        for position, future in running.items():
            try:
                contents[position] = future.result(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                fetcher.stop()
            except Exception as error:  # its text has no URL in it, which may hold a signature
                problems.append(str(error))
    return contents


def _thumbnail(content: bytes, most_pixels: int) -> Any:
    """An image file as a small RGB picture, upright. Raises BadImage."""
    image = open_image(content, most_pixels, lambda width, height: (SIDE, SIDE)).image
    image.thumbnail((SIDE, SIDE))
    return image


def _draw(rows: Sequence[_Row], thumbnails: Mapping[int, Any]) -> bytes:
    from PIL import Image, ImageDraw, ImageFont

    columns = 1 + max(len(row.neighbours) for row in rows)
    width, height = columns * (SIDE + GAP) + GAP, len(rows) * (SIDE + LABEL + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for line, row in enumerate(rows):
        top = GAP + line * (SIDE + LABEL + GAP)
        labelled = [(row.query, "query"), *((one, f"{cosine:.3f}") for one, cosine in row.neighbours)]
        for column, (position, label) in enumerate(labelled):
            left = GAP + column * (SIDE + GAP)
            draw.rectangle((left, top, left + SIDE, top + SIDE), fill="#f2f2f2")
            if (thumbnail := thumbnails.get(position)) is not None:
                corner = (left + (SIDE - thumbnail.width) // 2, top + (SIDE - thumbnail.height) // 2)
                sheet.paste(thumbnail, corner)
            draw.text(
                (left + 2, top + SIDE + 2), label, fill="#4f43dd" if column == 0 else "black", font=font
            )
    return _encode(sheet, (85, 70, 50, 30, 10))


def _encode(sheet: Any, qualities: Iterable[int]) -> bytes:
    """The sheet as a JPEG, in the best quality that fits."""
    jpeg = b""
    for quality in qualities:
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=quality, optimize=True)
        jpeg = buffer.getvalue()
        if len(jpeg) <= MOST_BYTES:
            break
    return jpeg
