"""Pixels are those of the model's own processor, whichever way they are made."""

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.image_utils import load_image

from batch_assets.encoders.image_files import BadImage, Opened, open_image
from batch_assets.encoders.preprocessing import ProcessorPixels, StepPixels, choose_pixels
from batch_assets_tests.encoders.pictures import every_kind, photograph, written

SQUARE = {"height": 64, "width": 64}
PROCESSORS: dict[str, Callable[[], Any]] = {
    "clip": lambda: transformers.CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=SQUARE),
    "siglip": lambda: transformers.SiglipImageProcessorPil(size=SQUARE),
    "dinov2": lambda: transformers.BitImageProcessorPil(size={"shortest_edge": 73}, crop_size=SQUARE),
    "vit": lambda: transformers.ViTImageProcessorPil(size=SQUARE),
    "deit": lambda: transformers.DeiTImageProcessorPil(size={"height": 73, "width": 73}, crop_size=SQUARE),
    "neither rescaled nor normalized": lambda: transformers.ViTImageProcessorPil(
        size=SQUARE, do_rescale=False, do_normalize=False
    ),
}


LARGE = ("12 megapixels", "8,000 wide", "retina")


@functools.cache
def decoded(content: bytes) -> Opened:
    return open_image(content, 10**8)


def levels_apart(pixels: StepPixels, opened: Opened, theirs: Any) -> np.ndarray:
    ours = pixels.finish(pixels.features([pixels.prepare(opened)]))["pixel_values"]
    assert ours.shape == theirs.shape
    return pixels.levels_apart(ours, torch.as_tensor(theirs)).numpy()


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_fast_way_makes_the_processors_pixels(name: str) -> None:
    processor = PROCESSORS[name]()
    pixels = choose_pixels(processor)
    assert isinstance(pixels, StepPixels)
    for kind, content in every_kind().items():
        whole = decoded(content)
        theirs = processor(load_image(whole.image), return_tensors="pt")["pixel_values"]
        apart = levels_apart(pixels, whole, theirs)
        assert apart.max() <= 3, kind
        assert apart.mean() < (0.25 if kind == "3 × 200" else 0.05), kind  # passes in another order
        opened = open_image(content, 10**8, pixels.target) if kind in LARGE else whole
        assert (opened.reduced > 1) == (kind in LARGE), kind
        if kind in LARGE:  # of smaller scale, and still the same to the eye and to the bound
            apart = levels_apart(pixels, opened, theirs)
            assert apart.mean() < 0.5, kind


@pytest.mark.parametrize(
    "processor",
    [
        transformers.ConvNextImageProcessorPil(size={"shortest_edge": 64}),
        transformers.EfficientNetImageProcessorPil(),
        transformers.CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 80, "width": 80}),
        transformers.ViTImageProcessorPil(do_resize=False),
        transformers.ViTImageProcessorPil(resample=0),
        object(),
    ],
)
def test_any_other_processor_runs_itself(processor: Any) -> None:
    assert isinstance(choose_pixels(processor), ProcessorPixels)


def test_images_of_a_processors_own_shapes_are_not_put_together() -> None:
    pixels = ProcessorPixels(transformers.ViTImageProcessorPil(do_resize=False))
    inputs = [pixels.prepare(Opened(Image.new("RGB", size), *size)) for size in ((40, 30), (30, 40))]
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        pixels.features(inputs)  # the worker halves the batch


def test_an_extreme_shape_is_not_blown_up(tmp_path: Path) -> None:
    """224 × 1,792,000 pixels of 3 bytes would be 1.2 GB, and as a processor goes many times that."""
    (tmp_path / "tall.png").write_bytes(written(photograph("coffee.png").resize((1, 8000)), "PNG"))
    (tmp_path / "wide.png").write_bytes(written(photograph("coffee.png").resize((8000, 1)), "PNG"))
    code = f"""
import resource, sys
import numpy as np
import torch
from pathlib import Path
from batch_assets.encoders.image_files import open_image
from batch_assets.encoders.preprocessing import StepPixels, Steps
pixels = StepPixels(Steps(224, None, (224, 224), 3, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in ("tall.png", "wide.png"):
    content = (Path({str(tmp_path)!r}) / name).read_bytes()
    levels = pixels.prepare(open_image(content, 10**8, pixels.target)).numpy()
    assert levels.shape == (3, 224, 224)
    np.save(Path({str(tmp_path)!r}) / name, levels)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000  # KiB
    tall, wide = (np.load(tmp_path / f"{name}.png.npy") for name in ("tall", "wide"))
    # The middle of the image, of which 224 pixels are one: smooth along it, the same across.
    assert np.ptp(tall.astype(int), axis=2).max() <= 1
    assert np.ptp(wide.astype(int), axis=1).max() <= 1
    middle = Image.open(tmp_path / "tall.png").getpixel((0, 4000))
    assert np.abs(tall[:, 112, 112].astype(int) - middle).max() <= 3


def test_a_processor_that_would_blow_it_up_is_not_given_it() -> None:
    pixels = ProcessorPixels(transformers.ConvNextImageProcessorPil(size={"shortest_edge": 224}))
    with pytest.raises(BadImage) as raised:
        pixels.prepare(Opened(Image.new("RGB", (1, 8000)), 1, 8000))
    assert raised.value.fault.code == "too_many_pixels"
    assert "401,408,000" in raised.value.fault.message
