"""The shard runner in this process: the GPU of this machine, or its CPU where there is none.

The run that iterates over a shard's run does the work. How records are read, embedded and committed is the
worker's and the encoder's business; claims are made in `control/collection.py`.
"""

import threading
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from batch_assets.embeddings.schema import EMBED, GENERATE, Task
from batch_assets.encoders.base import Encoder, ImageItem
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.encoders.weights import is_user_model
from batch_assets.errors import ConfigurationError
from batch_assets.executors.base import Limits, Progress
from batch_assets.settings.in_place import GpuExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import Storage
from batch_assets.worker.attempt import Attempt, ShardRun
from batch_assets.worker.run_shard import embedding, run_shard


@dataclass
class GpuMachine:
    """This machine's devices and the model loaded on them: one at a time, once per process.

    `device` and `batch_tokens` take the place of a pipeline's `auto`.
    """

    device: str = "auto"
    batch_tokens: int | None = None
    progress: Progress | None = None
    _loaded: tuple[str, Encoder] | None = field(default=None, repr=False)
    _loaded_for_queries: tuple[str, Encoder] | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def executor(self, settings: PipelineSettings) -> "GpuExecutor":
        """The executor of one pipeline on this machine."""
        return GpuExecutor(self, settings)

    def pick_device(self, settings: PipelineSettings) -> str:
        """Where the pipeline computes: `cpu`, or `cuda:N`. Raises ModelError for a device that is not there."""
        from batch_assets.encoders.devices import pick_device

        asked = _gpu_settings(settings).device
        device = pick_device(self.device if asked == "auto" else asked)
        return "cuda:0" if device == "cuda" else device

    def encoder(self, settings: PipelineSettings) -> Encoder:
        """The pipeline's model, loaded if it is not the one loaded last. Raises ModelError."""
        from batch_assets.encoders.registry import load_encoder

        key, device = self._key(settings)
        with self._lock:
            if self._loaded is None or self._loaded[0] != key:
                self._loaded = None  # give the memory back before the next model takes it
                self._loaded = (key, load_encoder(settings, device=device))
            return self._loaded[1]

    def embed_query(self, settings: PipelineSettings, text: str) -> npt.NDArray[np.float32]:
        """The vector (dimensions,) of a text to be looked for. Raises ModelError where the model embeds no texts."""
        from batch_assets.encoders.registry import load_query_encoder

        key, device = self._key(settings)
        key = f"{key}?{settings.model.query_prompt!r}"
        with self._lock:
            if self._loaded_for_queries is None or self._loaded_for_queries[0] != key:
                self._loaded_for_queries = (key, load_query_encoder(settings, device=device))
            return _only_vector(self._loaded_for_queries[1], text)

    def embed_query_image(self, settings: PipelineSettings, content: bytes) -> npt.NDArray[np.float32]:
        """The vector (dimensions,) of an image to be looked for: a whole file. Raises ConfigurationError for others."""
        if not settings.source.images:
            raise ConfigurationError(
                f"pipeline {settings.name} embeds texts: look for a text, or name a pipeline of images"
            )
        return _only_vector(self.encoder(settings), ImageItem(content))

    def _key(self, settings: PipelineSettings) -> tuple[str, str]:
        """What tells loaded models apart, and the device."""
        device = self.pick_device(settings)
        return f"{fingerprint(settings)}@{device}", device


@dataclass
class GpuExecutor:
    """Runs a shard here and now. See `base.ShardRunner` for the verbs."""

    machine: GpuMachine
    settings: PipelineSettings
    kind: str = "gpu"
    in_place: bool = True
    limits: Limits = field(default_factory=lambda: Limits(jobs=1))

    def exclusive_device(self) -> str | None:
        """A CUDA device: two models side by side would share its memory. A CPU only gets slower."""
        from batch_assets.encoders.devices import physical_device

        device = self.machine.pick_device(self.settings)
        return physical_device(device) if device.startswith("cuda") else None

    def at_once(self) -> int:
        return 1

    @property
    def task(self) -> Task:
        if self.settings.task == GENERATE:
            raise ConfigurationError(
                "task: executor gpu makes embeddings, not answers; leave task out, or name another executor.type"
            )
        return EMBED

    def fingerprint(self) -> str:
        _ = self.task
        return fingerprint(self.settings)

    def check(self) -> None:
        """Load the model; on a CPU it stays loaded. A CUDA device may be another's: there it is not touched."""
        from batch_assets.encoders.registry import load_encoder

        if self.exclusive_device() is None:
            self.machine.encoder(self.settings)
        elif self.settings.source.images or is_user_model(self.settings.model):
            load_encoder(self.settings, device="cpu")
        else:
            from batch_assets.encoders.loading import load_model
            from batch_assets.encoders.saved_model.made_up import made_up_weights
            from batch_assets.encoders.weights import locate_model

            model = self.settings.model
            if made_up_weights(load_model(model, "cpu", "bfloat16"), locate_model(model)):
                load_encoder(self.settings, device="cpu")  # which tries whether they matter

    def cancel(self, job: str) -> None:
        """Nothing runs outside `run`; whoever iterates over it stops by not going on."""

    def run(self, attempt: Attempt, storage: Storage) -> ShardRun:
        compute = embedding(
            self.settings,
            lambda: self.machine.encoder(self.settings),
            batch_tokens=self.machine.batch_tokens,
            progress=self.machine.progress,
        )
        return run_shard(attempt, storage, compute)


def _only_vector(encoder: Encoder, item: str | ImageItem) -> npt.NDArray[np.float32]:
    prepared = encoder.prepare([item])
    if isinstance(item, ImageItem):
        for fault in prepared.faults.values():
            raise ConfigurationError(f"this image cannot be embedded: {fault.message} ({fault.code})")
    if not prepared.counts[0]:
        raise ConfigurationError(
            f"{item!r:.100}: the model makes nothing of it; give it something to look for"
        )
    return encoder.encode(prepared.inputs)[0]


def _gpu_settings(settings: PipelineSettings) -> GpuExecutorSettings:
    assert isinstance(settings.executor, GpuExecutorSettings), settings.executor.type
    return settings.executor
