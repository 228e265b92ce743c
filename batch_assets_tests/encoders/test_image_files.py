"""Files that are no images, or not whole, cost themselves only and say why."""

import contextlib
import io
import struct
import threading
import tracemalloc
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageFile

from batch_assets.encoders.image_files import BadImage, open_image, set_up
from batch_assets_tests.encoders.pictures import every_kind, photograph, turned, written

MOST = 4_000_000


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return every_kind()


@pytest.fixture(autouse=True)
def pillows_own_limit() -> Iterator[None]:
    before = Image.MAX_IMAGE_PIXELS
    set_up(1)
    yield
    Image.MAX_IMAGE_PIXELS = before


def fault(content: bytes, most_pixels: int = MOST) -> tuple[str, str]:
    with pytest.raises(BadImage) as raised:
        open_image(content, most_pixels, lambda width, height: (64, 64))
    return raised.value.fault


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels, in some hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    lines = zlib.compress(b"\0" * 10_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"", "no_image", "zero bytes"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not_an_image", "HTML page"),
        (b"\xef\xbb\xbf\n <html lang='en'>", "not_an_image", "HTML page"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image", "SVG"),
        (b"\x00\x01\x00\x00\x00\x0f\x00\x80glyf" + bytes(300), "not_an_image", "font"),
        (b"wOF2\x00\x01\x00\x00" + bytes(300), "not_an_image", "font"),
        (b"%PDF-1.7\n", "not_an_image", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image", "none of JPEG"),
        (b'{"error": "quota"}', "not_an_image", "begins with"),
        (bytes(5000), "not_an_image", "begins with"),
        (b"\xff\xd8\xff", "truncated_image", "not whole"),
    ],
)
def test_what_is_no_image_is_told_by_what_it_is(content: bytes, code: str, says: str) -> None:
    found = fault(content)
    assert found[0] == code
    assert says in found[1]


@pytest.mark.parametrize(
    "kind", ["rgb jpeg", "progressive jpeg", "cmyk jpeg", "rgb png", "webp", "animated gif", "bmp", "tiff"]
)
@pytest.mark.parametrize("part", [0.02, 0.6, 0.98])
def test_a_truncated_file_is_never_embedded(files: dict[str, bytes], kind: str, part: float) -> None:
    content = files[kind]
    content = content[: int(len(content) * part)]
    # With a TIFF's index, which lies at its end, everything is gone; of a GIF the first frame may be whole.
    with contextlib.suppress(BadImage):
        opened = open_image(content, MOST)
        assert kind == "animated gif"
        assert np.array_equal(opened.image, open_image(files[kind], MOST).image)
        return
    code, message = fault(content)
    assert code == "truncated_image" or (kind in ("bmp", "tiff") and code in ("broken_image", "not_an_image"))
    assert "not whole" in message or code != "truncated_image"


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_truncated_files_of_rarer_kinds_are_told_from_broken_ones(kind: str) -> None:
    content = written(photograph("china.jpg", 320), kind)
    assert open_image(content, MOST).width == 320
    assert fault(content[:-20])[0] == fault(content[: len(content) // 2])[0] == "truncated_image"


def test_nothing_is_filled_up_whatever_other_code_has_set(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert fault(files["rgb jpeg"][:40_000])[0] == "truncated_image"
    damaged = bytearray(files["rgb png"])
    damaged[len(damaged) // 2 : len(damaged) // 2 + 64] = bytes(64)
    assert fault(bytes(damaged))[0] == "broken_image"


def test_pixels_are_counted_before_any_is_decoded(files: dict[str, bytes]) -> None:
    bomb = png_header(50_000, 50_000)
    tracemalloc.start()
    code, message = fault(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert code == "too_many_pixels"
    assert "source.max_image_pixels" in message or "decompression bomb" in message
    code, message = fault(files["rgb jpeg"], 1000)
    assert (code, message[:9]) == ("too_many_pixels", "640 × 427")


def test_pillows_limit_is_raised_with_ours_and_its_warnings_are_silent(files: dict[str, bytes]) -> None:
    Image.MAX_IMAGE_PIXELS = 1000  # as if ours were over twice Pillow's
    assert fault(files["rgb jpeg"])[0] == "too_many_pixels"
    set_up(200_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_up(200_000)
        open_image(files["rgb jpeg"], 300_000)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_reduced_scale_is_taken_only_of_upright_large_jpegs(orientation: int) -> None:
    def target(width: int, height: int) -> tuple[int, int]:
        return (64, 64 * height // width) if width < height else (64 * width // height, 64)

    image = photograph("astronaut.png", 1001).crop((0, 0, 1001, 701))
    content = turned(image, orientation)
    opened = open_image(content, MOST, target)
    size = (1001, 701) if orientation < 5 else (701, 1001)
    assert (opened.width, opened.height) == size
    assert opened.reduced == (2 if orientation == 1 else 1)
    assert opened.image.size == ((501, 351) if orientation == 1 else size)
    assert open_image(content, MOST).reduced == 1


def test_a_broken_exif_does_not_cost_the_image() -> None:
    image = photograph("chelsea.png", 200)
    exif = (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\x02\x12\0\x0c\xff\xff\xff\xff\x00"
    )
    opened = open_image(written(image, "JPEG", exif=exif), MOST)
    assert {opened.width, opened.height} == set(image.size)


def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from batch_assets.encoders import image_files

    monkeypatch.setattr(image_files, "LARGE_PIXELS", 1000)
    content = written(photograph("chelsea.png", 200), "PNG")
    at_once, most = 0, 0
    load = image_files._decode

    def decode(*arguments: object) -> object:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return load(*arguments)  # type: ignore[arg-type]
        finally:
            at_once -= 1

    monkeypatch.setattr(image_files, "_decode", decode)
    threads = [threading.Thread(target=open_image, args=(content, MOST)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_every_kind_of_file_is_read(files: dict[str, bytes]) -> None:
    for name, content in files.items():
        opened = open_image(content, 20_000_000)
        assert opened.image.mode == "RGB", name
        assert Image.open(io.BytesIO(content)).size in (opened.image.size, opened.image.size[::-1]), name
