"""The text encoder: a sentence-transformers or transformers model, loaded once, on CPU or CUDA.

The libraries define pooling, prompts, truncation and normalization; their modules run here one
after the other as `SentenceTransformer.encode` runs them, all after the transformer in float32.
How texts become features is in `feeding.py`, the faster CPU parts in `cpu.py`, and what is tried
before the model is trusted in `guards.py`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from batch_assets.encoders.base import Prepared
from batch_assets.encoders.devices import available_cores, pick_device, split_cores
from batch_assets.encoders.feeding import PROBES, Feed, choose_feed
from batch_assets.encoders.guards import (
    Cores,
    accelerate_if_same,
    cores_kept,
    load_in_best_dtype,
    refuse_made_up,
    refuse_missing_dimensions,
)
from batch_assets.encoders.loading import load_model, loading_errors, prompt_of
from batch_assets.encoders.saved_model.pooling import note_mean
from batch_assets.encoders.saved_model.sides import Side, as_saved, note_unused_prompt, task_of
from batch_assets.encoders.vectors import finished
from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings

CPU_BATCH_TOKENS = 2048
"""Enough for a product's full rate, few enough for their activations to stay in a core's caches."""
CUDA_BATCH_TOKENS, CUDA_THREADS = 32_768, 2
"""While one batch is on the device, the other is being padded or copied."""


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
        self.threads, each = (CUDA_THREADS, 1) if on_cuda else split_cores(cores)
        if not feed.parallel:
            self.threads, each = 1, cores
        self._cores = Cores(each)
        self.dimensions = self.probe().shape[1]

    @classmethod
    def load(
        cls,
        settings: ModelSettings,
        *,
        device: str = "auto",
        cores: int | None = None,
        side: Side = "document",
    ) -> "TextEncoder":
        """Load the model on `device`: auto, cpu, cuda, cuda:N; `cores` are all by default. Raises ModelError.

        Of a model that embeds records otherwise than what they are searched by, `side` says which are meant.
        """
        resolved, task = as_saved(settings, side), task_of(settings, side)
        with cores_kept(settings):
            place, number = pick_device(device), cores or available_cores()
            encoder = load_in_best_dtype(
                resolved, place, lambda dtype: cls._load(resolved, place, dtype, number, task)
            )
            transformer = getattr(encoder._model[0], "model", None)
            if place == "cpu" and encoder._feed.parallel and transformer is not None:
                accelerate_if_same(settings, transformer, encoder.batch_tokens, encoder)
        encoder._cores.forget()  # this thread computes with its own number of cores again
        refuse_missing_dimensions(settings, encoder.dimensions)
        note_mean(encoder._model, settings)
        if side == "document":
            note_unused_prompt(settings)
        return encoder

    @classmethod
    def _load(
        cls, settings: ModelSettings, device: str, dtype: str, cores: int, task: str | None
    ) -> "TextEncoder":
        model = load_model(settings, device, dtype)
        for number, module in enumerate(model.children()):
            if number or not hasattr(module, "model"):
                module.float()
        with loading_errors(settings):
            feed = choose_feed(model, prompt_of(model, settings), task)
            _refuse_without_room(feed, settings)
            encoder = cls(model, feed, settings, device, dtype, cores)
            refuse_made_up(settings, model, encoder)
        return encoder

    def prepare(self, items: Sequence[str]) -> Prepared:
        return self._feed.prepare(items)

    def encode(self, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        import torch

        self._cores.use()
        with torch.inference_mode():
            features = {
                name: value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
                for name, value in self._feed.features(inputs).items()
            }
            try:
                for module in self._model.children():
                    features = _in_float32(module(features))
                if "sentence_embedding" not in features:
                    modules = ", ".join(type(module).__name__ for module in self._model.children())
                    raise ModelError(
                        f"model {self._settings.id!r} makes no vector of a text: its modules ({modules}) pool "
                        "nothing; copy its files completely (1_Pooling), or set model.pooling"
                    )
                return finished(features["sentence_embedding"], self._settings)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                raise

    def probe(self) -> npt.NDArray[np.float32]:
        """Vectors of the probes, in one batch with padding."""
        tokenized = self.prepare(PROBES)
        return self.encode(
            [item for item, count in zip(tokenized.inputs, tokenized.counts, strict=True) if count]
        )


def _refuse_without_room(feed: Feed, settings: ModelSettings) -> None:
    """Raise ModelError where every text would be the same to the model: nothing of it comes after the prompt."""
    if len(feed.prepare(PROBES).faults) == len(PROBES):
        raise ModelError(
            f"model {settings.id!r}: nothing is left of any text, so that all vectors would be the same: the prompt "
            "takes all the tokens that the model takes; shorten model.prompt, or raise model.max_tokens"
        )


def _in_float32(features: dict[str, Any]) -> dict[str, Any]:
    """Pooling and what follows cost nothing in float32, and in reduced precision would show."""
    import torch

    def widen(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.float()
        return tuple(map(widen, value)) if isinstance(value, tuple) else value

    return {name: widen(value) for name, value in features.items()}
