"""Write a test data set of real photographs, as img2dataset lays them out.

    python examples/make_image_dataset.py OUT [--format img2dataset|webdataset] [--images 400] [--shards 4]
                                              [--urls] [--failed 0]

Cuttings of the photographs that scikit-image and scikit-learn ship, some mirrored, brighter or
darker, always the same ones: JPEG files of 683 × 512 pixels, and a few PNG and WebP among them.
`img2dataset` gives Parquet shards with the files in the column `jpg`; with `--urls` the files lie in
OUT/images instead, and `url` names them. `webdataset` gives tars, with Parquet beside them as
img2dataset writes it. `--failed N` adds rows of images that could not be downloaded. A folder that
is complete is left alone.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

SIZE = (683, 512)
# Package, folder in it, file, what is to be seen.
PHOTOGRAPHS = (
    ("skimage", "data", "astronaut.png", "an astronaut in an orange suit"),
    ("skimage", "data", "chelsea.png", "a cat that looks at the camera"),
    ("skimage", "data", "coffee.png", "a cup of coffee on a wooden table"),
    ("skimage", "data", "rocket.jpg", "a rocket on its launch pad at night"),
    ("skimage", "data", "hubble_deep_field.jpg", "galaxies in the deep field"),
    ("skimage", "data", "retina.jpg", "the retina of an eye"),
    ("skimage", "data", "motorcycle_left.png", "a motorcycle in a workshop"),
    ("skimage", "data", "camera.png", "a man behind a camera on a tripod"),
    ("skimage", "data", "moon.png", "the surface of the moon"),
    ("skimage", "data", "coins.png", "Greek coins on a tray"),
    ("sklearn", "datasets/images", "china.jpg", "a temple in China"),
    ("sklearn", "datasets/images", "flower.jpg", "a dahlia in bloom"),
)


@dataclass(frozen=True)
class Picture:
    """A row of the data set; one that could not be downloaded has no content."""

    key: str
    extension: str
    caption: str
    content: bytes | None

    def row(self, folder: str | None) -> dict[str, Any]:
        """What img2dataset says of it; `folder` is where its file lies, if it is a file."""
        name = f"{self.key}.{self.extension}"
        width, height = SIZE if self.content is not None else (None, None)
        return {
            "key": self.key,
            "url": f"{folder}/{name}" if folder else f"https://example.org/photographs/{name}",
            "caption": self.caption,
            "status": "success" if self.content is not None else "failed_to_download",
            "error_message": None if self.content is not None else "HTTP Error 404: Not Found",
            "width": width,
            "height": height,
            "original_width": width,
            "original_height": height,
            "sha256": None if self.content is None else hashlib.sha256(self.content).hexdigest(),
        }


def find_photographs() -> list[tuple[Path, str]]:
    """Files and captions of the photographs that are installed. Ends the program where there are none."""
    found: list[tuple[Path, str]] = []
    for package, folder, name, caption in PHOTOGRAPHS:
        spec = importlib.util.find_spec(package)
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        found += [(file, caption) for place in places if (file := Path(place, folder, name)).is_file()]
    if not found:
        sys.exit(
            "no photographs are installed: they come with scikit-image and scikit-learn; "
            "pip install scikit-image scikit-learn, then try again"
        )
    return found


def make_pictures(images: int, failed: int) -> Iterator[Picture]:
    """The images in order, those that have failed spread evenly among them; the same ones at every call."""
    from PIL import Image

    loaded = [(Image.open(file).convert("RGB"), caption) for file, caption in find_photographs()]
    total = images + failed
    # As many of the numbers as have failed cross a whole number of `failed / total`.
    numbers = [(number, (number + 1) * failed // total > number * failed // total) for number in range(total)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, total, 64):  # Executor.map would make all of them before the first is taken
            yield from pool.map(partial(_make, loaded), numbers[start : start + 64])


def _make(photographs: Sequence[tuple[Any, str]], place: tuple[int, bool]) -> Picture:
    number, failed = place
    photograph, caption = photographs[number % len(photographs)]
    if failed:
        return Picture(f"{number:09d}", "jpg", caption, None)
    from PIL import Image, ImageOps

    chance = random.Random(number)
    width, height = photograph.size
    share = min(width / SIZE[0], height / SIZE[1]) * chance.uniform(0.6, 1.0)
    x, y = chance.uniform(0, width - SIZE[0] * share), chance.uniform(0, height - SIZE[1] * share)
    image = photograph.resize(
        SIZE, box=(x, y, x + SIZE[0] * share, y + SIZE[1] * share), resample=Image.Resampling.BILINEAR
    )
    if chance.random() < 0.5:
        image, caption = ImageOps.mirror(image), f"{caption}, mirrored"
    light = chance.choice([0.7, 1.0, 1.0, 1.3])
    if light != 1.0:
        image = image.point([min(round(level * light), 255) for level in range(256)] * 3)
        caption += ", brighter" if light > 1.0 else ", darker"
    extension = {13: "png", 27: "webp"}.get(number % 40, "jpg")
    options = {"png": {"compress_level": 1}, "webp": {"quality": 80, "method": 0}}.get(
        extension, {"quality": 85}
    )
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[extension], **options)
    return Picture(f"{number:09d}", extension, caption, buffer.getvalue())


def write_data_set(
    folder: Path,
    *,
    format: str = "img2dataset",
    images: int = 400,
    shards: int = 4,
    urls: bool = False,
    failed: int = 0,
) -> int:
    """Fill `folder` with a data set; returns its rows, those that have failed too.

    The folder appears whole or not at all. One that is complete stays as it is; one that holds
    anything else is refused.
    """
    if urls and format != "img2dataset":
        sys.exit("--urls: a tar holds its images; use it with --format img2dataset")
    total = images + failed
    if _is_complete(folder, format, total, shards, urls):
        return total
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder}: holds other files than this data set; remove it or name another folder")
    pictures = make_pictures(images, failed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for shard in range(shards):
            count = total * (shard + 1) // shards - total * shard // shards
            _write_shard(unfinished, f"{shard:05d}", [next(pictures) for _ in range(count)], format, urls)
        unfinished.chmod(0o755)
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return total


def _write_shard(folder: Path, name: str, pictures: list[Picture], format: str, urls: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [picture.row("images" if urls else None) for picture in pictures]
    if format == "webdataset":
        _write_tar(folder / f"{name}.tar", pictures, rows)
    elif urls:
        (folder / "images").mkdir(exist_ok=True)
        for picture in pictures:
            if picture.content is not None:
                (folder / "images" / f"{picture.key}.{picture.extension}").write_bytes(picture.content)
    types = {
        "width": pa.int32(),
        "height": pa.int32(),
        "original_width": pa.int32(),
        "original_height": pa.int32(),
    }
    schema = pa.schema(
        [(field, types.get(field, pa.string())) for field in Picture("", "", "", None).row(None)]
    )
    table = pa.Table.from_pylist(rows, schema)
    if format == "img2dataset" and not urls:
        table = table.append_column("jpg", pa.array([picture.content for picture in pictures], pa.binary()))
    pq.write_table(table, folder / f"{name}.parquet", row_group_size=100)
    successes = sum(picture.content is not None for picture in pictures)
    statistics = {
        "count": len(pictures),
        "successes": successes,
        "failed_to_download": len(pictures) - successes,
        "failed_to_resize": 0,
    }
    (folder / f"{name}_stats.json").write_text(json.dumps(statistics, indent=2))


def _write_tar(path: Path, pictures: list[Picture], rows: list[dict[str, Any]]) -> None:
    with tarfile.open(path, "w") as tar:
        for picture, row in zip(pictures, rows, strict=True):
            if picture.content is None:
                continue
            texts = {"json": json.dumps(row).encode(), "txt": picture.caption.encode()}
            for extension, data in {picture.extension: picture.content, **texts}.items():
                member = tarfile.TarInfo(f"{picture.key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _is_complete(folder: Path, format: str, total: int, shards: int, urls: bool) -> bool:
    """Whether the folder holds a data set of this format and size."""
    endings = [".parquet", "_stats.json", *([".tar"] if format == "webdataset" else [])]
    expected = {f"{shard:05d}{ending}" for shard in range(shards) for ending in endings}
    expected |= {"images"} if urls else set()
    if not folder.is_dir() or {file.name for file in folder.iterdir()} != expected:
        return False
    return sum(json.loads(file.read_bytes())["count"] for file in folder.glob("*_stats.json")) == total


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a test data set of real photographs.")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--format", choices=["img2dataset", "webdataset"], default="img2dataset")
    parser.add_argument("--images", type=int, default=400, help="how many images (default 400)")
    parser.add_argument("--shards", type=int, default=4, help="in how many shards (default 4)")
    parser.add_argument("--urls", action="store_true", help="image files in OUT/images, named by url")
    parser.add_argument("--failed", type=int, default=0, help="rows of images that could not be downloaded")
    given = parser.parse_args()
    if given.images < 1 or given.shards < 1 or given.failed < 0:
        parser.error("--images and --shards take positive numbers, --failed 0 or more")
    rows = write_data_set(
        given.out,
        format=given.format,
        images=given.images,
        shards=given.shards,
        urls=given.urls,
        failed=given.failed,
    )
    print(f"{rows:,} rows of photographs ({given.format}) in {given.out}")


if __name__ == "__main__":
    main()
