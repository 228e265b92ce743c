"""From an image file to what a vision model takes, by the model's own image processor.

`choose_pixels` gives the fast way where it makes the pixels that the processor makes (resize,
centre crop, rescale, normalize: CLIP, SigLIP, ViT, DINOv2 and most others), and the processor
itself where not. The fast way stops at bytes: rescaling and normalizing are the device's work.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from batch_assets.encoders.image_files import LARGE_PIXELS, BadImage, Opened

MOST_LEVELS, MOST_MEAN_LEVELS = 32.0, 0.25
"""How far the fast way may be from the processor on the probes, of 256 levels. Rounding makes 1 of
0.3% of the values; where another Pillow takes its two passes in another order, 1 of 15% and more in noise."""
WIDEST = 2
"""Where the crop keeps less than 1/so many of the resized image, only that part of it is made."""
LARGEST_RESIZED = 64_000_000
"""Pixels that a processor of its own may make of an image on its way; beyond, it is not given the image."""
_NEAREST = 0  # PIL.Image.Resampling.NEAREST


class Pixels(Protocol):
    """One image's input at a time, then batches of them; both from any thread."""

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that an image is resized to before it is cropped."""
        ...

    def prepare(self, opened: Opened) -> Any:
        """One image's input. Raises BadImage."""
        ...

    def features(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """Tensors of one batch, on the CPU, or on the device that some of the inputs are on."""
        ...

    def finish(self, features: dict[str, Any]) -> dict[str, Any]:
        """What the model takes, float32, on the device that `features` are on."""
        ...


def choose_pixels(processor: Any) -> Pixels:
    """The way to feed a model whose image processor (of transformers, by PIL) is `processor`."""
    library = ProcessorPixels(processor)
    try:
        steps = read_steps(processor)
        flatten = processor.convert_to_rgb if getattr(processor, "do_convert_rgb", None) else None
        fast = None if steps is None else StepPixels(steps, flatten)
        return fast if fast is not None and _same(fast, library) else library
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):  # a processor of another kind
        return library


@dataclass(frozen=True)
class Steps:
    """What a simple processor does to an RGB image: one resize, one centre crop, then a · level + b.

    `edge` is what the shorter edge becomes, unless `size` (height, width) squeezes the image into
    it. `crop` (height, width) is never larger. `scale` and `shift` have a value per channel.
    """

    edge: int | None
    size: tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: int
    scale: tuple[float, ...]
    shift: tuple[float, ...]


def read_steps(processor: Any) -> Steps | None:
    """The steps of a processor by its settings; None where it is clearly of another kind."""
    size = _sizes(processor.size)
    edge = size.get("shortest_edge")
    exact = (size["height"], size["width"]) if {"height", "width"} <= size.keys() else None
    if not processor.do_resize or (edge is None) == (exact is None) or "longest_edge" in size:
        return None
    if processor.resample == _NEAREST:
        return None  # what a pixel is then depends on the scale that a file is decoded at
    crop = None
    if getattr(processor, "do_center_crop", None):
        crop_size = _sizes(processor.crop_size)
        crop = (crop_size["height"], crop_size["width"])
        smallest = exact or (edge or 0, edge or 0)
        if crop[0] > smallest[0] or crop[1] > smallest[1]:
            return None  # what is missing would be filled with black
    if crop is None and edge is not None:
        return None  # images of unequal shapes
    factor = processor.rescale_factor if processor.do_rescale else 1.0
    mean, deviation = (
        (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    )
    return Steps(
        edge=edge,
        size=exact,
        crop=crop,
        resample=int(processor.resample),
        scale=tuple(factor / each for each in deviation),
        shift=tuple(-each / other for each, other in zip(mean, deviation, strict=True)),
    )


class StepPixels:
    """The fast way: bytes, resized by torch, which takes a seventh of Pillow's time for the same pixels."""

    def __init__(self, steps: Steps, flatten: Callable[[Any], Any] | None = None) -> None:
        """`flatten` gives the levels (height, width, 3) of an RGB image in which one colour is transparent."""
        from PIL.Image import Resampling

        self._steps, self._flatten = steps, flatten
        modes: dict[int, str] = {Resampling.BILINEAR: "bilinear", Resampling.BICUBIC: "bicubic"}
        self._mode = modes.get(steps.resample, "")

    def target(self, width: int, height: int) -> tuple[int, int]:
        if self._steps.size is not None:
            return self._steps.size[1], self._steps.size[0]
        edge = self._steps.edge or 1
        # As transformers' get_resize_output_image_size rounds.
        longer = int(edge * max(width, height) / min(width, height))
        return (edge, longer) if width <= height else (longer, edge)

    def prepare(self, opened: Opened) -> Any:
        """A tensor (3, height, width) of uint8."""
        import torch
        from PIL import Image

        if self._flatten is not None and opened.image.info.get("transparency") is not None:
            opened = opened._replace(image=Image.fromarray(self._flatten(opened.image)))
        width, height = self.target(opened.width, opened.height)
        if opened.reduced > 1 or not self.resizes_whole(opened.width, opened.height):
            # Pillow looks beyond the box where its filter needs to, as if it resized the whole.
            top, left, down, across = self._cut(width, height)
            x, y = opened.width / opened.reduced / width, opened.height / opened.reduced / height
            right, bottom = (
                min((left + across) * x, opened.image.width),
                min((top + down) * y, opened.image.height),
            )
            box = (left * x, top * y, right, bottom)
            image = opened.image.resize((across, down), self._steps.resample, box=box)
            return torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return self.resize(torch.from_numpy(np.array(opened.image)).permute(2, 0, 1))

    def resizes_whole(self, width: int, height: int) -> bool:
        """Whether all of an image is resized, by torch, and not only what the crop keeps, by Pillow."""
        resized = self.target(width, height)
        _, _, down, across = self._cut(*resized)
        wide = resized[0] * resized[1] > WIDEST * down * across or width * height > LARGE_PIXELS
        return bool(self._mode) and not wide

    def resize(self, levels: Any) -> Any:
        """Resize and crop an image (3, height, width) where it is.

        It is of uint8, or of float32 where a device resizes no bytes; that is rounded after each pass
        as bytes are.
        """
        import torch

        (height, width), (to_width, to_height) = levels.shape[1:], self.target(*levels.shape[:0:-1])
        sizes, real = _passes(width, height, to_width, to_height), levels.is_floating_point()
        if real and len(sizes) == 1:
            sizes.insert(0, (height, to_width))
        for size in sizes:
            levels = torch.nn.functional.interpolate(levels[None], size, mode=self._mode, antialias=True)[0]
            levels = levels.round().clamp(0, 255) if real else levels
        top, left, down, across = self._cut(to_width, to_height)
        return levels[:, top : top + down, left : left + across].clone()

    def _cut(self, width: int, height: int) -> tuple[int, int, int, int]:
        """What the crop keeps of a resized image: its top, left, height and width."""
        down, across = self._steps.crop or (height, width)
        return (height - down) // 2, (width - across) // 2, down, across

    def features(self, inputs: Sequence[Any]) -> dict[str, Any]:
        import torch

        devices = {each.device for each in inputs}
        if len(devices) == 1:
            return {"pixel_values": torch.stack(list(inputs))}
        target = next(device for device in devices if device.type != "cpu")
        batch = torch.empty((len(inputs), *inputs[0].shape), dtype=inputs[0].dtype, device=target)
        for device in devices:
            positions = [position for position, each in enumerate(inputs) if each.device == device]
            batch[positions] = torch.stack([inputs[position] for position in positions]).to(target)
        return {"pixel_values": batch}

    def finish(self, features: dict[str, Any]) -> dict[str, Any]:
        import torch

        levels = features["pixel_values"]
        scale, shift = (
            torch.tensor(values, device=levels.device).view(1, 3, 1, 1)
            for values in (self._steps.scale, self._steps.shift)
        )
        return {"pixel_values": torch.addcmul(shift, levels.float(), scale)}

    def levels_apart(self, a: Any, b: Any) -> Any:
        """How far finished pixels `a` and `b` (n, 3, height, width) are from each other, of 256 levels."""
        import torch

        return (a - b).abs() / torch.tensor(self._steps.scale).view(1, 3, 1, 1)


class ProcessorPixels:
    """The processor itself, an image at a time."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._edge = _sizes(getattr(processor, "size", None)).get("shortest_edge")

    def target(self, width: int, height: int) -> tuple[int, int]:
        return width, height

    def prepare(self, opened: Opened) -> dict[str, Any]:
        """The processor's tensors, each with a batch dimension of 1."""
        shorter, longer = sorted((opened.width, opened.height))
        resized = (self._edge or 0) ** 2 * longer // shorter
        if resized > LARGEST_RESIZED:
            raise BadImage(
                "too_many_pixels",
                f"of {opened.width} × {opened.height} pixels the model's image processor would make {resized:,}",
            )
        made = self._processor(opened.image, return_tensors="pt")
        return {name: value for name, value in made.items() if hasattr(value, "shape")}

    def features(self, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        return {name: torch.cat([each[name] for each in inputs]) for name in inputs[0]}

    def finish(self, features: dict[str, Any]) -> dict[str, Any]:
        return features


def _passes(width: int, height: int, to_width: int, to_height: int) -> list[tuple[int, int]]:
    """Sizes (height, width) to resize to, one after the other, in the order of Pillow's two passes.

    torch takes the horizontal one first, Pillow (libImaging/Resample.c) the vertical one where it
    makes the image much less; in between both round to bytes.
    """
    if (width, height) == (to_width, to_height):
        return []
    vertical_first = height > to_height and height - to_height > 2 * (width - to_width)
    return [*([(to_height, width)] if vertical_first else []), (to_height, to_width)]


def probe_images() -> list[Any]:
    """Images of several shapes with what resizing stumbles over: edges, noise, single pixels."""
    from PIL import Image

    random = np.random.default_rng(0)
    images: list[Any] = []
    for width, height in ((640, 480), (333, 500), (1024, 300), (91, 77), (1, 1)):
        across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
        waves = np.sin(40 * across * down + np.arange(3)[:, None, None]) * 90 + 128
        waves[:, down > 0.7] = 255.0
        levels = waves + random.normal(0, 25, waves.shape) * (across > 0.5)
        images.append(Image.fromarray(_to_bytes(levels.transpose(1, 2, 0))))
    return images


def _to_bytes(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.clip(levels, 0, 255).astype(np.uint8)


def _same(fast: StepPixels, library: ProcessorPixels) -> bool:
    """Whether both ways make the same pixels of the probes, but for rounding."""
    for image in probe_images():
        opened = Opened(image, *image.size)
        theirs = library.features([library.prepare(opened)])
        ours = fast.finish(fast.features([fast.prepare(opened)]))
        if theirs.keys() != ours.keys() or theirs["pixel_values"].shape != ours["pixel_values"].shape:
            return False
        levels = fast.levels_apart(ours["pixel_values"], theirs["pixel_values"])
        if not (levels.max() <= MOST_LEVELS and levels.mean() <= MOST_MEAN_LEVELS):
            return False
    return True


def _sizes(size: Any) -> dict[str, int]:
    """A processor's size as a mapping: releases of transformers keep it as a dict, or as their own class."""
    return (
        {} if size is None else {name: int(value) for name, value in dict(size).items() if value is not None}
    )
