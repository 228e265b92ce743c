"""The text encoder: a sentence-transformers or transformers model, loaded once, on CPU or CUDA.

The libraries define pooling, prompts, truncation and normalization; their modules run here one
after the other as `SentenceTransformer.encode` runs them, all after the transformer in float32.
How texts become features is in `feeding.py`, the faster CPU parts in `cpu.py`.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from batch_assets.encoders.base import Prepared
from batch_assets.encoders.cpu import accelerate
from batch_assets.encoders.devices import available_cores, pick_device, pick_dtype, split_cores
from batch_assets.encoders.feeding import PROBES, Feed, choose_feed
from batch_assets.encoders.loading import (
    load_model,
    loading_errors,
    made_up_parameters,
    prompt_of,
    require_libraries,
)
from batch_assets.encoders.weights import weight_bytes
from batch_assets.errors import ModelError
from batch_assets.settings import ModelSettings

CPU_BATCH_TOKENS = 2048
"""Enough for a product's full rate, few enough for their activations to stay in a core's caches."""
CUDA_BATCH_TOKENS, CUDA_THREADS = 32_768, 2
"""While one batch is on the device, the other is being padded or copied."""
LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999}
"""Below this, faster parts do not compute what the model does, and are taken out again."""
LEAST_COSINE_AUTO, MOST_BYTES_AUTO = 0.9998, 2 * 10**9
"""Below this on the probes, `auto` stays at float32; not tried for weights too large to load twice."""

logger = logging.getLogger(__name__)


class TextEncoder:
    """Implements `encoders.base.Encoder`; `load` makes one."""

    takes: Literal["text", "image"] = "text"
    batch_records: int | None = None
    prepare_threads = 1  # tokenizers have threads of their own
    window_records = 4096

    def __init__(
        self, model: Any, feed: Feed, settings: ModelSettings, device: str, dtype: str, cores: int
    ) -> None:
        """Take over a SentenceTransformer that is on `device` and computes in `dtype`, with `cores` cores."""
        self.device, self.normalized = device, settings.normalize
        self.dtype = dtype if hasattr(model[0], "model") else "float32"
        self._model, self._feed, self._settings = model, feed, settings
        on_cuda = device.startswith("cuda")
        self.batch_tokens = CUDA_BATCH_TOKENS if on_cuda else CPU_BATCH_TOKENS
        self.threads, self._cores = (CUDA_THREADS, 1) if on_cuda else split_cores(cores)
        if not feed.parallel:
            self.threads, self._cores = 1, cores
        self._thread = threading.local()
        self.dimensions = self._probe().shape[1]

    @classmethod
    def load(
        cls, settings: ModelSettings, *, device: str = "auto", cores: int | None = None
    ) -> "TextEncoder":
        """Load the model on `device`: auto, cpu, cuda, cuda:N; `cores` are all by default. Raises ModelError."""
        with _cores_kept(settings):
            encoder = cls._load_checked(settings, pick_device(device), cores or available_cores())
        encoder._thread = threading.local()  # this thread computes with its own number of cores again
        if settings.dimensions is not None and settings.dimensions > encoder.dimensions:
            raise ModelError(
                f"model.dimensions: {settings.dimensions} is more than the {encoder.dimensions} "
                f"that {settings.id!r} has; use at most that, or leave it out"
            )
        return encoder

    @classmethod
    def _load_checked(cls, settings: ModelSettings, device: str, cores: int) -> "TextEncoder":
        dtype = pick_dtype(settings.dtype, device)
        if settings.dtype == "auto" and dtype != "float32" and weight_bytes(settings) <= MOST_BYTES_AUTO:
            encoder = cls._load_reduced(settings, device, dtype, cores)
        else:
            encoder = cls._load(settings, device, dtype, cores)
        if device == "cpu":
            encoder._accelerate()
        return encoder

    @classmethod
    def _load_reduced(cls, settings: ModelSettings, device: str, dtype: str, cores: int) -> "TextEncoder":
        """The model in `dtype`, or in float32 where it cannot compute in `dtype` or loses too much in it."""
        exact = cls._load(settings, device, "float32", cores)
        try:
            reduced = cls._load(settings, device, dtype, cores)
            cosine = _lowest_cosine(exact._probe(), reduced._probe())
            reason = f"its lowest cosine to float32 is {cosine:.5f}"
        except ModelError as error:
            reduced, cosine, reason = exact, 0.0, str(error.__cause__)
        if cosine >= LEAST_COSINE_AUTO:
            return reduced
        logger.warning("model %s computes in float32, not %s: %s", settings.id, dtype, reason)
        return exact

    @classmethod
    def _load(cls, settings: ModelSettings, device: str, dtype: str, cores: int) -> "TextEncoder":
        model = load_model(settings, device, dtype)
        for number, module in enumerate(model.children()):
            if number or not hasattr(module, "model"):
                module.float()
        with loading_errors(settings):
            feed = choose_feed(model, prompt_of(model, settings))
            encoder = cls(model, feed, settings, device, dtype, cores)
            encoder._refuse_made_up(made_up_parameters(model, settings))
        return encoder

    def prepare(self, texts: Sequence[str]) -> Prepared:
        return self._feed.prepare(texts)

    def encode(self, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        import torch

        self._use_cores()
        with torch.inference_mode():
            features = {
                name: value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
                for name, value in self._feed.features(inputs).items()
            }
            try:
                for module in self._model.children():
                    features = _in_float32(module(features))
                vectors = features["sentence_embedding"][:, : self._settings.dimensions]
                if self._settings.normalize:
                    vectors = torch.nn.functional.normalize(vectors, p=2, dim=1)
                return np.ascontiguousarray(vectors.cpu().numpy())
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                raise

    def _use_cores(self) -> None:
        """Set how many cores this thread's products use; PyTorch keeps that for each thread."""
        if not getattr(self._thread, "ready", False):
            import torch

            torch.set_num_threads(self._cores)
            self._thread.ready = True

    def _probe(self) -> npt.NDArray[np.float32]:
        """Vectors of the probes, in one batch with padding."""
        tokenized = self.prepare(PROBES)
        return self.encode(
            [item for item, count in zip(tokenized.inputs, tokenized.counts, strict=True) if count]
        )

    def _refuse_made_up(self, parameters: dict[str, Any]) -> None:
        """Raise ModelError where vectors depend on parameters that the model's files do not hold."""
        if not parameters:
            return
        import torch

        own = self._probe()
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.copy_(torch.randn_like(parameter))
        if _lowest_cosine(own, self._probe()) < LEAST_COSINE["bfloat16"]:
            raise ModelError(
                f"model {self._settings.id!r}: its files lack {len(parameters)} of its parameters, such as "
                f"{min(parameters)}; copy the model's files completely"
            )

    def _accelerate(self) -> None:
        """Exchange the transformer's parts for faster ones, if the vectors stay the same."""
        transformer = getattr(self._model[0], "model", None)
        if not self._feed.parallel or transformer is None or self.dtype not in LEAST_COSINE:
            return
        own, undo = self._probe(), None
        try:
            undo = accelerate(transformer, self.batch_tokens)
            cosine = _lowest_cosine(own, self._probe())
            reason = f"the lowest cosine to its own vectors is {cosine}"
        except Exception as error:  # what a model is made of cannot be known; its own parts work
            cosine, reason = 0.0, f"{type(error).__name__}: {error}"
        if not cosine >= LEAST_COSINE[self.dtype]:
            logger.warning("model %s keeps its own layers on the CPU: %s", self._settings.id, reason)
            if undo is not None:
                undo()


@contextlib.contextmanager
def _cores_kept(settings: ModelSettings) -> Iterator[None]:
    """Leave the calling thread's number of cores as it was: it may run other models. Raises ModelError."""
    require_libraries(settings)
    import torch

    cores = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(cores)


def _in_float32(features: dict[str, Any]) -> dict[str, Any]:
    """Pooling and what follows cost nothing in float32, and in reduced precision would show."""
    import torch

    def widen(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.float()
        return tuple(map(widen, value)) if isinstance(value, tuple) else value

    return {name: widen(value) for name, value in features.items()}


def _lowest_cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-12)).min())
