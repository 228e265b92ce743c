"""JPEGs by a device's decoder: the same vectors and the same faults, or the CPU way.

There is no GPU here. A stand-in for torchvision decodes by Pillow, in any way that nvJPEG might.
"""

import contextlib
import io
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from batch_assets.encoders import nvjpeg
from batch_assets.encoders.base import ImageItem
from batch_assets.encoders.image import ImageEncoder
from batch_assets.encoders.nvjpeg import DeviceJpegs, jpegs_if_same
from batch_assets.encoders.preprocessing import ProcessorPixels, StepPixels, Steps
from batch_assets.settings.model import ModelSettings
from batch_assets_tests.builders import make_tiny_clip
from batch_assets_tests.encoders.pictures import every_kind, photograph, turned, written
from batch_assets_tests.encoders.test_text import lowest_cosine


class Torchvision:
    """In the place of `torchvision.io`. `spoil` changes an image; `refuses` fails a whole call for one file."""

    ImageReadMode = SimpleNamespace(RGB="RGB")

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.device = ""
        self.refuses: Callable[[bytes], bool] = lambda content: False
        self.spoil: Callable[[torch.Tensor], torch.Tensor] = lambda image: image

    def decode_jpeg(self, files: list[torch.Tensor], mode: str, device: str) -> list[torch.Tensor]:
        contents = [file.numpy().tobytes() for file in files]
        self.calls.append(len(contents))
        self.device = device
        assert not any(b"Exif\0" in content for content in contents)
        if any(self.refuses(content) for content in contents):
            raise RuntimeError("Error while decoding JPEG images: Failed to decode batch: 4")
        images = [np.array(Image.open(io.BytesIO(content)).convert(mode)) for content in contents]
        return [self.spoil(torch.from_numpy(image).permute(2, 0, 1)) for image in images]


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Torchvision:
    stand_in = Torchvision()
    monkeypatch.setitem(sys.modules, "torchvision.io", stand_in)  # type: ignore[arg-type]
    return stand_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def encoder(folder: Path, decoder: Torchvision) -> ImageEncoder:
    """An encoder as on CUDA, as far as JPEGs go."""
    settings = ModelSettings(id=str(folder), dtype="float32")
    loaded = ImageEncoder.load(settings, device="cpu", most_pixels=20_000_000)
    assert loaded.jpegs is None
    assert not decoder.calls  # only CUDA tries it
    loaded.jpegs = jpegs_if_same(settings, "cpu", loaded._pixels, loaded.encode)
    assert loaded.jpegs is not None
    decoder.calls.clear()
    return loaded


def by_cpu(encoder: ImageEncoder, items: list[ImageItem]) -> Any:
    jpegs, encoder.jpegs = encoder.jpegs, None
    try:
        return encoder.prepare(items)
    finally:
        encoder.jpegs = jpegs


def assert_same(encoder: ImageEncoder, items: list[ImageItem]) -> None:
    """Faults, counts and vectors are those of the CPU way."""
    ours, theirs = encoder.prepare(items), by_cpu(encoder, items)
    assert ours.faults == theirs.faults
    assert ours.counts.tolist() == theirs.counts.tolist()
    good = [position for position in range(len(items)) if position not in ours.faults]
    vectors, expected = (
        encoder.encode([prepared.inputs[position] for position in good]) for prepared in (ours, theirs)
    )
    assert lowest_cosine(vectors, expected) > 0.9999


def test_plain_jpegs_are_decoded_by_the_device_and_keep_their_vectors(
    encoder: ImageEncoder, decoder: Torchvision
) -> None:
    files = every_kind()
    items = [ImageItem(content) for content in files.values()]
    assert encoder.jpegs is not None
    made = encoder.jpegs.prepare([item.content for item in items], 20_000_000)
    names = {list(files)[position] for position in made}
    # Not what is turned, of other colours or formats, or resized in part ("8,000 wide").
    assert names == {
        "rgb jpeg", "progressive jpeg", "grey jpeg", "12 megapixels", "portrait", "retina",
    }  # fmt: skip
    assert decoder.calls == [6]
    theirs = by_cpu(encoder, items)
    for position, image in made.items():
        assert (image.dtype, image.shape) == (torch.uint8, (3, 64, 64))
        apart = (image.int() - theirs.inputs[position].int()).abs()
        reduced = list(files)[position] in (
            "12 megapixels",
            "retina",
        )  # the CPU decodes those at a smaller scale
        assert apart.float().mean() < (0.5 if reduced else 0.02)
        assert reduced or apart.max() <= 1
    assert_same(encoder, items)
    # 29 good ones in calls of a bounded size, from several threads.
    decoder.calls.clear()
    chunk = [ImageItem(files["rgb jpeg"])] * 29
    with ThreadPoolExecutor(3) as pool:
        for prepared in pool.map(encoder.prepare, [chunk] * 3):
            assert all(torch.equal(image, made[0]) for image in prepared.inputs)
    assert sorted(decoder.calls) == [5] * 3 + [8] * 9


def test_bad_files_among_good_ones_keep_their_faults(
    encoder: ImageEncoder, decoder: Torchvision, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = every_kind()
    good, small = files["rgb jpeg"], photograph("chelsea.png", 200)
    contents = [
        good,
        good[: len(good) // 2],  # a decoder may fill these up and say nothing
        good[:-2],
        good[: len(good) // 2] + bytes(100),
        good[:20] + b"\xff\xd9",
        b"",
        b"<html></html>",
        files["cmyk jpeg"],
        written(small, "JPEG", keep_rgb=True),  # not YCbCr
        turned(small, 6),
        turned(small, 1),
        files["16 bit png"],
        written(Image.new("RGB", (5000, 4001)), "JPEG"),
        written(small.resize((40, 30)), "JPEG"),  # would be made larger
        files["progressive jpeg"],
    ]
    items = [ImageItem(content) for content in contents]
    prepared = encoder.prepare(items)
    codes = {position: fault.code for position, fault in prepared.faults.items()}
    assert codes == {
        1: "truncated_image", 2: "truncated_image", 3: "truncated_image", 4: "broken_image",
        5: "no_image", 6: "not_an_image", 12: "too_many_pixels",
    }  # fmt: skip
    assert decoder.calls == [3]  # the first, the upright one with EXIF, and the last
    assert_same(encoder, items)


def test_what_the_decoder_refuses_goes_the_cpu_way(encoder: ImageEncoder, decoder: Torchvision) -> None:
    items = [ImageItem(every_kind()[name]) for name in ("rgb jpeg", "retina", "grey jpeg", "rgb png")]
    refused = items[1].content
    decoder.refuses = lambda content: content == refused
    assert_same(encoder, items)
    assert decoder.calls == [3, 1, 1, 1]
    decoder.refuses = lambda content: True
    assert_same(encoder, items)
    decoder.refuses, decoder.spoil = lambda content: False, lambda image: image[:, :-1]
    assert_same(encoder, items)  # another shape than the header says


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda image: image.flip(0), "levels apart"),  # blue for red
        (lambda image: image // 2, "levels apart"),
        (lambda image: image.roll(40, 2), "levels apart"),
        (lambda image: image[:1], "only 0 of 6 probes"),
        (lambda image: image[None], "only 0 of 6 probes"),
        (lambda image: 1 // 0, "ZeroDivisionError"),
    ],
)
def test_a_decoder_of_other_pixels_is_not_used(
    spoil: Any, says: str, encoder: ImageEncoder, decoder: Torchvision, caplog: pytest.LogCaptureFixture
) -> None:
    decoder.spoil = spoil
    with caplog.at_level(logging.INFO):
        assert jpegs_if_same(ModelSettings(id="some/clip"), "cpu", encoder._pixels, encoder.encode) is None
    assert len(caplog.records) == 1
    assert "some/clip: JPEGs are decoded by the CPU, not by nvJPEG" in caplog.text
    assert says in caplog.text


def test_vectors_decide_where_pixels_look_alike(
    encoder: ImageEncoder, decoder: Torchvision, caplog: pytest.LogCaptureFixture
) -> None:
    def unlike(inputs: list[Any]) -> np.ndarray:
        return np.random.default_rng(int(inputs[0].sum()) % 2**32).normal(size=(len(inputs), 32))

    decoder.spoil = lambda image: image // 2 * 2
    assert jpegs_if_same(ModelSettings(id="a"), "cpu", encoder._pixels, unlike) is None
    assert "the lowest cosine is -0." in caplog.text


def test_a_decoder_that_errs_in_small_images_gets_large_ones(
    encoder: ImageEncoder, decoder: Torchvision
) -> None:
    decoder.spoil = lambda image: image if min(image.shape[1:]) >= 128 else image.flip(0)
    jpegs = jpegs_if_same(ModelSettings(id="a"), "cpu", encoder._pixels, encoder.encode)
    assert jpegs is not None
    contents = [written(photograph("chelsea.png").resize((size, size)), "JPEG") for size in (127, 128)]
    assert list(jpegs.prepare(contents, 10**9)) == [1]


def test_without_torchvision_or_a_processor_of_plain_steps_the_cpu_decodes(
    encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ModelSettings(id="a")
    own = ProcessorPixels(transformers.ViTImageProcessorPil(resample=0))
    assert jpegs_if_same(settings, "cpu", own, encoder.encode) is None
    assert "steps of its own" in caplog.text
    lanczos = StepPixels(Steps(None, (64, 64), None, Image.Resampling.LANCZOS, (1.0,) * 3, (0.0,) * 3))
    assert jpegs_if_same(settings, "cpu", lanczos, encoder.encode) is None
    monkeypatch.setitem(sys.modules, "torchvision.io", None)
    caplog.clear()
    assert jpegs_if_same(settings, "cpu", encoder._pixels, encoder.encode) is None
    assert [record.message.rpartition(": ")[0][-19:] for record in caplog.records] == ["ModuleNotFoundError"]


def test_inputs_on_the_device_and_on_the_host_make_one_batch() -> None:
    pixels = StepPixels(Steps(None, (8, 8), None, Image.Resampling.BICUBIC, (1.0,) * 3, (0.0,) * 3))
    host, device = (torch.zeros(3, 8, 8, dtype=torch.uint8, device=place) for place in ("cpu", "meta"))
    batch = pixels.features([host, device, host])["pixel_values"]
    assert (batch.device.type, batch.shape, batch.dtype) == ("meta", (3, 3, 8, 8), torch.uint8)


def test_a_call_leaves_nothing_under_way_on_the_device(
    encoder: ImageEncoder, decoder: Torchvision, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []
    stream = SimpleNamespace(synchronize=lambda: waited.append("stream"), device="cuda:1")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda chosen: contextlib.nullcontext(chosen is stream))
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    pixels, content = encoder._pixels, every_kind()["rgb jpeg"]
    assert isinstance(pixels, StepPixels)
    jpegs = DeviceJpegs(pixels, "cuda:1", 1.0)
    assert list(jpegs.prepare([content], 10**9)) == [0]
    assert (waited, decoder.device) == (["stream"], "cuda:1")
    decoder.refuses = lambda content: True
    assert jpegs.prepare([content], 10**9) == {}
    assert waited == ["stream", "cuda:1"]


def test_memory_of_a_call_is_bounded(encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    content = every_kind()["rgb jpeg"]
    assert encoder.jpegs is not None
    monkeypatch.setattr(nvjpeg, "MOST_PIXELS", 1000)
    assert encoder.jpegs.prepare([content], 10**9) == {}
