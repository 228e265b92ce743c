"""From the bytes of an image file to its pixels, or to the reason why it has none.

What a model makes of the pixels is in `preprocessing.py`. Nothing is guessed or filled up: a
file that is not whole is a fault, and the number of pixels is looked at before any is decoded.
"""

import contextlib
import functools
import threading
import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple

from batch_assets.sources.base import Fault

FORMATS = (
    "JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "ICO", "QOI",
)  # fmt: skip
"""What is read. Pillow knows more, such as EPS, for which it runs another program."""
LARGE_PIXELS = 25_000_000
"""Larger images, of 100 MB and more, are decoded one at a time: threads must not add them up."""
SPARE = 4
"""A JPEG is decoded at a reduced scale only where that leaves so many times the edges it is resized to.
On photographs that moves the resized pixels by 0.15 of 256 levels on average (cosine at least
0.99995); 2 would move them by 0.4 (0.9999). The decoder's time falls to about 0.6 of it."""
_ORIENTATION = 0x0112
_END_BYTES = 1024
_FONTS = (b"\x00\x01\x00\x00", b"OTTO", b"ttcf", b"wOFF", b"wOF2")

_large = threading.Lock()


class BadImage(Exception):
    """A file that no image can be read from; `fault` is what becomes of its record."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(code, message)


class Opened(NamedTuple):
    """An RGB image (PIL), upright. `width` and `height` are its file's; the image has one `reduced`-th of them.

    Its last column and row may then stand for less than a whole pixel.
    """

    image: Any
    width: int
    height: int
    reduced: int = 1


Target = Callable[[int, int], tuple[int, int]]
"""Width and height that an image is going to be resized to, of its own."""


def set_up(most_pixels: int) -> None:
    """Silence the decoders' warnings, and put our limit on pixels in the place of Pillow's.

    Pillow refuses what is over twice its limit, for the whole process, so that limit is only raised.
    """
    from PIL import Image

    warnings.filterwarnings("ignore", module=r"PIL\.")
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, most_pixels)


def open_image(content: bytes, most_pixels: int, target: Target | None = None) -> Opened:
    """Decode a file as transformers' `load_image` does: its first frame, turned upright, in RGB.

    With a `target`, a JPEG is decoded at a half, a quarter or an eighth of its scale where that
    leaves SPARE times the target's edges. Raises BadImage: `no_image`, `not_an_image`,
    `too_many_pixels`, `truncated_image`, `broken_image`.
    """
    image = _identify(content)
    width, height = image.size
    if width * height > most_pixels:
        raise BadImage(
            "too_many_pixels",
            f"{width} × {height} pixels are more than the {most_pixels:,} that source.max_image_pixels allows",
        )
    if width * height > LARGE_PIXELS:
        with _large:
            return _decode(image, content, target)
    return _decode(image, content, target)


def _identify(content: bytes) -> Any:
    """The file's image (PIL), its header read and nothing decoded. Raises BadImage."""
    from PIL import Image

    if not content:
        raise BadImage("no_image", "the image file has zero bytes")
    try:
        return Image.open(BytesIO(content), formats=known_formats())
    except Image.DecompressionBombError as error:
        raise _too_many(error) from None
    except MemoryError:
        raise
    except Exception as error:  # a decoder raises whatever it stumbles over
        if _kind(content) is not None:
            raise _damaged(content, error) from None
        raise BadImage("not_an_image", _describe(content)) from None


@functools.cache
def known_formats() -> list[str]:
    """Of FORMATS, those that this machine's Pillow was built with."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


class PlainJpeg(NamedTuple):
    """A JPEG file without its EXIF, for a decoder that knows less than Pillow."""

    content: bytes
    width: int
    height: int


def plain_jpeg(content: bytes) -> PlainJpeg | None:
    """A whole upright JPEG of 8 bits, grey or YCbCr, by its header; None for anything else.

    Compressed data hold no end marker, so what ends with one was not cut off.
    """
    if content[:3] != b"\xff\xd8\xff" or content[-2:] != b"\xff\xd9":
        return None
    try:
        image = _identify(content)
    except BadImage:
        return None
    plain = (
        image.format == "JPEG"  # not MPO, of several images
        and image.bits == 8
        and [layer[0] for layer in image.layer] in ([1], [1, 2, 3])  # else it may be RGB
        and image.info.get("adobe_transform", 1) == 1
        and not _is_turned(image)
    )
    exif = image.info.get("exif", b"")
    if exif:
        content = content.replace(b"\xff\xe1" + min(len(exif) + 2, 0xFFFF).to_bytes(2, "big") + exif, b"")
    return PlainJpeg(content, *image.size) if plain and b"Exif\0" not in content else None


def _decode(image: Any, content: bytes, target: Target | None) -> Opened:
    from PIL import Image, ImageFile, ImageOps

    # The process's, and other code's to set, such as a user's own model.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    width, height = image.size
    try:
        if target is not None and image.format in ("JPEG", "MPO") and not _is_turned(image):
            across, down = target(width, height)
            image.draft(None, (SPARE * across, SPARE * down))
        reduced = max(round(width / image.width), round(height / image.height))
        image.load()
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many(error) from None
    except Exception as error:
        raise _damaged(content, error) from None
    # It turns the pixels first; what may fail is to write the rest of a broken EXIF anew.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    try:
        upright = image if image.mode == "RGB" else image.convert("RGB")
    except (ValueError, OSError) as error:
        raise _damaged(content, error) from None
    return Opened(upright, width, height, reduced) if reduced > 1 else Opened(upright, *upright.size)


def _is_turned(image: Any) -> bool:
    """Whether a JPEG is to be turned; what its EXIF says may be broken."""
    try:
        return image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:
        return False


def _too_many(error: Exception) -> BadImage:
    """Pillow's refusal, with the name of the limit that the user may set."""
    size = str(error).partition(" exceeds")[0]
    return BadImage("too_many_pixels", f"{size} is more than source.max_image_pixels allows")


def _damaged(content: bytes, error: Exception) -> BadImage:
    from PIL import UnidentifiedImageError

    kind, reason = _kind(content), " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):  # says where in memory the file is, and nothing else
        reason = "its header is none of an image"
    file = f"the {kind or 'image'} file of {len(content):,} bytes"
    if "truncated" in reason.lower() or not _has_end(kind, content):
        return BadImage("truncated_image", f"{file} is not whole: {reason}")
    return BadImage("broken_image", f"{file} cannot be decoded: {reason}")


def _kind(content: bytes) -> str | None:
    """The format that a file's first bytes promise, of the common ones."""
    if content[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if content[:4] == b"RIFF" and content[8:12] in (b"WEBP", b""):
        return "WebP"
    if content[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if content[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    if content[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    if content[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" or content[:4] == b"\xff\x4f\xff\x51":
        return "JPEG 2000"
    return "BMP" if content[:2] == b"BM" and len(content) > 26 and content[6:10] == b"\0\0\0\0" else None


def _has_end(kind: str | None, content: bytes) -> bool:
    """Whether the file ends as its format does; True where that cannot be told."""
    end = content[-_END_BYTES:]
    if kind in ("JPEG", "JPEG 2000"):
        return b"\xff\xd9" in end
    if kind == "PNG":
        return b"IEND" in end
    if kind == "GIF":
        return b";" in end
    if kind == "WebP":
        return len(content) >= 12 and 8 + int.from_bytes(content[4:8], "little") <= len(content)
    return kind != "AVIF" or _has_whole_boxes(content)


def _has_whole_boxes(content: bytes) -> bool:
    """Whether no box of an ISO media file reaches beyond its end."""
    position = 0
    while position < len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        if size == 0:  # up to the end, wherever that is
            return True
        if size == 1:
            size = int.from_bytes(content[position + 8 : position + 16], "big")
        position += max(size, 8)
    return position == len(content)


def _describe(content: bytes) -> str:
    """What the file is instead, as far as its beginning tells."""
    start = content[:_END_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")) or b"<html" in start:
        return "the file is an HTML page, no image; the address may need a login or be gone"
    if b"<svg" in start:
        return "the file is an SVG drawing; only images of pixels are embedded: convert it first"
    if content.startswith(_FONTS):
        return "the file is a font, no image"
    if start.startswith(b"%pdf"):
        return "the file is a PDF document, no image"
    return f"the file begins with {content[:16]!r} and is none of {', '.join(FORMATS)}"
