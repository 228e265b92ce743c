"""The image encoder: a vision model of transformers, loaded once, on CPU or CUDA.

Which output is an image's vector is in `image_loading.py`, how a file becomes pixels in
`image_files.py` and `preprocessing.py`, JPEGs on CUDA in `nvjpeg.py`, the faster CPU parts in
`cpu.py`, and what is tried before the model is trusted in `guards.py`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from batch_assets.encoders.base import ImageItem, Prepared
from batch_assets.encoders.devices import available_cores, pick_device, split_cores
from batch_assets.encoders.guards import (
    LEAST_COSINE,
    Cores,
    accelerate_if_same,
    cores_kept,
    load_in_best_dtype,
    lowest_cosine,
    refuse_made_up,
    refuse_missing_dimensions,
)
from batch_assets.encoders.image_files import BadImage, Opened, open_image, set_up
from batch_assets.encoders.image_loading import LOADED_BY, ImageModel, load_image_model
from batch_assets.encoders.loading import loading_errors
from batch_assets.encoders.nvjpeg import DeviceJpegs, jpegs_if_same
from batch_assets.encoders.preprocessing import Pixels, choose_pixels, probe_images
from batch_assets.encoders.saved_model.sides import as_saved
from batch_assets.encoders.vectors import finished
from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings
from batch_assets.sources.base import Fault

CPU_BATCH_TOKENS = 1024
"""From half of that on, a product's full rate; from four times that on, fresh memory for every layer costs a third."""
CUDA_BATCH_RECORDS, CUDA_THREADS = 256, 2
"""While one batch is on the device, the other is being put together or copied."""
MOST_WINDOW_RECORDS, WINDOW_BYTES = 1024, 64 * 2**20
"""Prepared images at once: as many as four batches of a GPU's, or as fit into so many bytes."""


class ImageEncoder:
    """Implements `encoders.base.Encoder`; `load` makes one."""

    takes: Literal["text", "image"] = "image"

    def __init__(
        self, model: ImageModel, pixels: Pixels, settings: ModelSettings, device: str, dtype: str, cores: int
    ) -> None:
        """Take over a model that is on `device` and computes in `dtype`, with `cores` cores for all threads."""
        self.device, self.dtype, self.normalized = device, dtype, settings.normalize
        self._model, self._pixels, self._settings = model, pixels, settings
        self._on_cuda = device.startswith("cuda")
        self.threads, each = (CUDA_THREADS, 1) if self._on_cuda else split_cores(cores)
        self._cores, self._one_core = Cores(each), Cores(1)
        self.prepare_threads, self.most_pixels = cores, 10**9
        self.jpegs: DeviceJpegs | None = None
        self.tokens, self.window_records = 1, MOST_WINDOW_RECORDS
        self._probes = [pixels.prepare(Opened(image, *image.size)) for image in probe_images()]
        self.dimensions = self.probe().shape[1]
        self.batch_tokens = max(
            CUDA_BATCH_RECORDS * self.tokens if self._on_cuda else CPU_BATCH_TOKENS, self.tokens
        )
        self.batch_records: int | None = CUDA_BATCH_RECORDS if self._on_cuda else None
        self.window_records = min(MOST_WINDOW_RECORDS, max(64, WINDOW_BYTES // _size(self._probes[0])))

    @classmethod
    def load(
        cls,
        settings: ModelSettings,
        *,
        device: str = "auto",
        cores: int | None = None,
        most_pixels: int = 10**8,
    ) -> "ImageEncoder":
        """Load the model on `device`: auto, cpu, cuda, cuda:N; `cores` are all by default.

        An image of more than `most_pixels` is a fault. Raises ModelError.
        """
        resolved = as_saved(settings)
        with cores_kept(settings):
            place, number = pick_device(device), cores or available_cores()
            encoder = load_in_best_dtype(
                resolved, place, lambda dtype: cls._load(resolved, place, dtype, number)
            )
            if place == "cpu":
                accelerate_if_same(settings, encoder._model.model, encoder.batch_tokens, encoder)
            if encoder._on_cuda:
                encoder.jpegs = jpegs_if_same(settings, place, encoder._pixels, encoder.encode)
        encoder._cores.forget()  # this thread computes with its own number of cores again
        refuse_missing_dimensions(settings, encoder.dimensions)
        encoder.most_pixels = most_pixels
        set_up(most_pixels)
        return encoder

    @classmethod
    def _load(cls, settings: ModelSettings, device: str, dtype: str, cores: int) -> "ImageEncoder":
        import torch

        model = load_image_model(settings, device, dtype)
        if device.startswith("cuda"):
            model.model.to(memory_format=torch.channels_last)
        with loading_errors(settings, LOADED_BY):
            encoder = cls(model, choose_pixels(model.processor), settings, device, dtype, cores)
            encoder._refuse_random()
            refuse_made_up(settings, model.model, encoder)
        return encoder

    def prepare(self, items: Sequence[ImageItem]) -> Prepared:
        """Decode image files and resize them. What is no image is a fault."""
        self._one_core.use()
        inputs: list[Any] = []
        faults: dict[int, Fault] = {}
        contents = [item.content for item in items]
        decoded = {} if self.jpegs is None else self.jpegs.prepare(contents, self.most_pixels)
        for position, item in enumerate(items):
            if position in decoded:
                inputs.append(decoded[position])
                continue
            try:
                opened = open_image(item.content, self.most_pixels, self._pixels.target)
                inputs.append(self._pixels.prepare(opened))
            except BadImage as error:
                inputs.append(None)
                faults[position] = error.fault
        counts = np.full(len(inputs), self.tokens, dtype=np.int32)
        counts[list(faults)] = 0
        return Prepared(inputs, counts, faults)

    def encode(self, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        import torch

        self._cores.use()
        with torch.inference_mode():
            try:
                features = {name: self._move(value) for name, value in self._pixels.features(inputs).items()}
                vectors, self.tokens = self._model(
                    {name: self._narrow(value) for name, value in self._pixels.finish(features).items()}
                )
                return finished(vectors, self._settings)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                raise

    def probe(self) -> npt.NDArray[np.float32]:
        """Vectors of the probe images, in one batch."""
        return self.encode(self._probes)

    def _move(self, tensor: Any) -> Any:
        if not self._on_cuda or tensor.device.type != "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _narrow(self, tensor: Any) -> Any:
        """A tensor of real numbers in the model's precision and, on CUDA, the layout its convolutions like."""
        import torch

        if not tensor.is_floating_point():
            return tensor
        layout = torch.channels_last if self._on_cuda and tensor.dim() == 4 else torch.preserve_format
        return tensor.to(getattr(torch, self.dtype), memory_format=layout)

    def _refuse_random(self) -> None:
        """Raise ModelError for a model that draws lots at every call, as masked autoencoders do."""
        cosine = lowest_cosine(self.probe(), self.probe())
        if not cosine >= LEAST_COSINE["bfloat16"]:
            raise ModelError(
                f"model {self._settings.id!r} makes other vectors of the same image at every call (cosine "
                f"{cosine:.3f}); name a model for embeddings, such as CLIP, SigLIP or DINOv2"
            )


def _size(prepared: Any) -> int:
    """Bytes of one prepared image."""
    tensors = prepared.values() if isinstance(prepared, dict) else [prepared]
    return sum(tensor.nbytes for tensor in tensors)
