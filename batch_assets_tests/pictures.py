"""Image files for tests: real photographs, and all that is none."""

import io
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


@cache
def photograph(number: int) -> Any:
    """One of scikit-image's photographs (PIL, RGB), at 320 pixels of width; `number` also shifts it a little."""
    import skimage
    from PIL import Image

    name = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
    image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
    shift = number // len(PHOTOGRAPHS) * 3 % 60
    image = image.crop((shift, 0, image.width, image.height))
    return image.resize((320, 320 * image.height // image.width))


def image_file(number: int, format: str = "JPEG") -> bytes:
    """A photograph as a file."""
    file = io.BytesIO()
    photograph(number).save(file, format)
    return file.getvalue()


def bad_images() -> dict[str, list[bytes]]:
    """Code → files that are rejected with it."""
    jpeg, png = image_file(1), image_file(2, "PNG")
    middle = len(png) // 2
    return {
        "no_image": [b""],
        "not_an_image": [
            b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
            b"\x00\x01\x00\x00\x00\x0f\x00\x80font",
            b"no image at all",
        ],
        "truncated_image": [jpeg[: len(jpeg) // 2], png[:middle]],
        "broken_image": [png[:middle] + bytes(64) + png[middle + 64 :]],
        "too_many_pixels": [bomb(30_000, 30_000)],
    }


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it has so many pixels, and nearly none of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
