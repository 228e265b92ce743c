"""Photographs that installed packages ship, written in every way that image files come in."""

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import sklearn
from PIL import Image

_SKIMAGE = Path(skimage.__file__).parent / "data"
_SKLEARN = Path(sklearn.__file__).parent / "datasets" / "images"
NAMES = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "retina.jpg")


def photograph(name: str, width: int | None = None) -> Any:
    """A photograph in RGB, at its own size or `width` pixels wide."""
    folder = _SKLEARN if name in ("china.jpg", "flower.jpg") else _SKIMAGE
    image = Image.open(folder / name).convert("RGB")
    if width is None:
        return image
    return image.resize((width, round(width * image.height / image.width)), Image.Resampling.LANCZOS)


def written(image: Any, kind: str, **options: Any) -> bytes:
    """An image as a file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(image: Any, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return written(image, "JPEG", quality=95, exif=exif)


@functools.cache
def every_kind() -> dict[str, bytes]:
    """Files of every mode and format, each of a photograph."""
    china, flower = photograph("china.jpg"), photograph("flower.jpg")
    cat, astronaut = photograph("chelsea.png"), photograph("astronaut.png", 300)
    alpha = Image.linear_gradient("L").resize(cat.size)
    transparent = cat.copy()
    transparent.putalpha(alpha)
    deep = Image.fromarray(np.asarray(cat.convert("L"), dtype=np.uint16) * 257)
    frames = {"save_all": True, "append_images": [flower.resize(cat.size)], "duration": 100}
    return {
        "rgb jpeg": written(china, "JPEG", quality=90),
        "progressive jpeg": written(flower, "JPEG", quality=80, progressive=True),
        "grey jpeg": written(china.convert("L"), "JPEG"),
        "cmyk jpeg": written(flower.convert("CMYK"), "JPEG", quality=90),
        "rgb png": written(astronaut, "PNG"),
        "grey png": written(cat.convert("L"), "PNG"),
        "one bit png": written(cat.convert("1"), "PNG"),
        "palette png": written(cat.quantize(64), "PNG"),
        "palette with transparency": written(cat.quantize(64), "PNG", transparency=5),
        "rgba png": written(transparent, "PNG"),
        "grey and alpha png": written(transparent.convert("LA"), "PNG"),
        "16 bit png": written(deep, "PNG"),
        "webp": written(flower, "WEBP", quality=85),
        "webp with alpha": written(transparent, "WEBP", lossless=True),
        "animated webp": written(cat, "WEBP", **frames),
        "animated gif": written(cat, "GIF", **frames),
        "animated png": written(cat, "PNG", **frames),
        "bmp": written(cat, "BMP"),
        "tiff": written(flower, "TIFF", compression="tiff_lzw"),
        **{f"turned {each}": turned(china, each) for each in (2, 3, 5, 6, 8)},
        "1 × 1": written(Image.new("RGB", (1, 1), (200, 30, 90)), "PNG"),
        "3 × 200": written(cat.resize((3, 200)), "PNG"),
        "8,000 wide": written(photograph("coffee.png", 8000).crop((0, 1000, 8000, 3000)), "JPEG", quality=85),
        "12 megapixels": written(photograph("astronaut.png", 3461), "JPEG", quality=90),
        "portrait": written(photograph("rocket.jpg").transpose(Image.Transpose.ROTATE_90), "JPEG"),
        "retina": written(photograph("retina.jpg"), "JPEG", quality=92),
    }
