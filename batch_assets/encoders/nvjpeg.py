"""JPEG files decoded by a CUDA device: nvJPEG, by torchvision, where the vectors are those of the CPU way.

Only plain, whole files are given to it. What it refuses, and everything else, is left to
`image_files.py`, which knows what is wrong with a file. Written by torchvision's documentation and
source, and tested with a stand-in for its decoder: it has not run on a GPU yet.
"""

import functools
import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from batch_assets.encoders.guards import lowest_cosine
from batch_assets.encoders.image_files import PlainJpeg, open_image, plain_jpeg
from batch_assets.encoders.preprocessing import Pixels, StepPixels, probe_images
from batch_assets.plain_text import plain_logger
from batch_assets.settings.model import ModelSettings

LEAST_COSINE, MOST_MEAN_LEVELS = 0.9995, 4.0
"""How near the probes' vectors, and how far their pixels of 256 levels, may be. nvJPEG repeats the
colours of a 4:2:0 file where libjpeg interpolates: 1 to 1.7 levels; red for blue makes dozens."""
SPARES = (1.0, 2.0)
"""Only images of so many times the edges they are resized to are decoded here: the first of these at
which probes of just that size, too, agree. In smaller images it shows more how colours are interpolated."""
CALL_IMAGES, MOST_PIXELS = 8, 16_000_000
"""Images of a call, and pixels of each: at most 0.6 GB of the device, as there is one call at a time."""

Encode = Callable[[list[Any]], npt.NDArray[np.float32]]

logger = plain_logger(__name__)


class DeviceJpegs:
    """Decodes, resizes and crops on `device`. `prepare` may be called from several threads at once."""

    def __init__(self, pixels: StepPixels, device: str, spare: float) -> None:
        """Raises ImportError, or what a broken torchvision raises."""
        import torch

        io = importlib.import_module("torchvision.io")
        self._decode_jpeg = functools.partial(io.decode_jpeg, mode=io.ImageReadMode.RGB, device=device)
        self._pixels, self._spare = pixels, spare
        self._lock = threading.Lock()
        # torchvision writes on a stream of its own into memory of the caller's, and does not wait for that
        # one: what a model has just given back there may still be in use. So a stream for this alone, with
        # nothing left to do when the next call begins. Whoever encodes holds the inputs until it is done.
        self._stream = torch.cuda.Stream(device) if device.startswith("cuda") else None

    def prepare(self, contents: Sequence[bytes], most_pixels: int) -> dict[int, Any]:
        """Inputs of StepPixels, on the device, by position; what is missing is left to the CPU."""
        most = min(most_pixels, MOST_PIXELS)
        files = {position: plain_jpeg(content) for position, content in enumerate(contents)}
        fitting = [(position, file) for position, file in files.items() if file and self._fits(file, most)]
        made: dict[int, Any] = {}
        for first in range(0, len(fitting), CALL_IMAGES):
            made |= self._decode_what_it_can(dict(fitting[first : first + CALL_IMAGES]))
        return made

    def difference(self, encode: Encode) -> str | None:
        """What tells the probes from those of the CPU way; None if nothing does. Raises what the decoder does."""
        contents = _probe_files(self._pixels, self._spare)
        plain = {position: plain_jpeg(content) for position, content in enumerate(contents)}
        made = self._decode({position: file for position, file in plain.items() if file})
        if len(made) < len(contents):
            return f"only {len(made)} of {len(contents)} probes have their shape"
        ours = [made[position] for position in range(len(contents))]
        theirs = [self._pixels.prepare(open_image(content, MOST_PIXELS)) for content in contents]
        levels = max(float((a.cpu().float() - b).abs().mean()) for a, b in zip(ours, theirs, strict=True))
        cosine = lowest_cosine(encode(ours), encode(theirs))
        if levels <= MOST_MEAN_LEVELS and cosine >= LEAST_COSINE:
            return None
        return f"its pixels are {levels:.2f} levels apart, the lowest cosine is {cosine:.5f}"

    def _fits(self, file: PlainJpeg, most_pixels: int) -> bool:
        width, height = file.width, file.height
        across, down = self._pixels.target(width, height)
        enough = width >= self._spare * across and height >= self._spare * down
        return enough and width * height <= most_pixels and self._pixels.resizes_whole(width, height)

    def _decode_what_it_can(self, files: dict[int, PlainJpeg]) -> dict[int, Any]:
        """All at once; where that fails, one by one."""
        try:
            return self._decode(files)
        except Exception:  # torch wraps all that CUDA says, memory included: the CPU will know what it is
            if len(files) == 1:
                return {}
        return {
            at: made for each in files for at, made in self._decode_what_it_can({each: files[each]}).items()
        }

    def _decode(self, files: Mapping[int, PlainJpeg]) -> dict[int, Any]:
        """As many as come out in their own shape. Raises what the decoder raises, for all at once."""
        import torch

        contents = [torch.frombuffer(bytearray(file.content), dtype=torch.uint8) for file in files.values()]
        with self._lock, torch.cuda.stream(self._stream):
            try:
                images = self._decode_jpeg(contents)
                made = {
                    position: self._pixels.resize(image.float()).to(torch.uint8)
                    for (position, file), image in zip(files.items(), images, strict=True)
                    if image.shape == (3, file.height, file.width)
                }
                if self._stream is not None:
                    self._stream.synchronize()
            except Exception:
                if self._stream is not None:  # the decoder's own may still be reading the files
                    torch.cuda.synchronize(self._stream.device)
                raise
        return made


def jpegs_if_same(settings: ModelSettings, device: str, pixels: Pixels, encode: Encode) -> DeviceJpegs | None:
    """What decodes JPEGs on `device`, if that keeps the vectors; else None, and the log says why."""
    reason: str | None = "the model's image processor takes steps of its own"
    try:
        if isinstance(pixels, StepPixels):
            for spare in SPARES:
                jpegs = DeviceJpegs(pixels, device, spare)
                reason = jpegs.difference(encode)
                if reason is None:
                    return jpegs
    except Exception as error:  # torchvision may be missing, of another release, or without nvJPEG
        reason = f"{type(error).__name__}: {error}"
    logger.warning("model %s: JPEGs are decoded by the CPU, not by nvJPEG: %s", settings.id, reason)
    return None


def _probe_files(pixels: StepPixels, spare: float) -> list[bytes]:
    """JPEGs of the usual kinds, of `spare` times the edges that they are resized to, and of more."""
    files: list[bytes] = []
    for image, times in zip(probe_images()[:2], (spare, 2.7 * spare), strict=True):
        width, height = pixels.target(*image.size)
        sized = image.resize((round(times * width), round(times * height)))
        for mode, progressive in (("RGB", False), ("RGB", True), ("L", False)):
            file = BytesIO()
            sized.convert(mode).save(file, "JPEG", quality=90, progressive=progressive)
            files.append(file.getvalue())
    return files
