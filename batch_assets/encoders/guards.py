"""What is tried before a loaded model is trusted: its precision, its parameters, its faster parts.

Every guard compares vectors of a few probes, which the encoder brings, so that it serves texts
and images alike. What makes the vectors is the encoder's business.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from batch_assets.encoders.cpu import accelerate
from batch_assets.encoders.devices import pick_dtype
from batch_assets.encoders.loading import require
from batch_assets.encoders.saved_model.made_up import made_up_weights, unread_names
from batch_assets.encoders.weights import locate_model, weight_bytes
from batch_assets.errors import ModelError
from batch_assets.plain_text import plain_logger
from batch_assets.settings.model import ModelSettings

LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.999}
"""Below this, faster parts do not compute what the model does, and are taken out again."""
LEAST_COSINE_AUTO, MOST_BYTES_AUTO = 0.9998, 2 * 10**9
"""Below this on the probes, `auto` stays at float32; not tried for weights too large to load twice."""

logger = plain_logger(__name__)


class Probed(Protocol):
    """A loaded model that can embed its probes."""

    dtype: str

    def probe(self) -> npt.NDArray[np.float32]:
        """Vectors (n, dimensions) of the probes, in one batch."""
        ...


Loaded = TypeVar("Loaded", bound=Probed)


def load_in_best_dtype(settings: ModelSettings, device: str, load: Callable[[str], Loaded]) -> Loaded:
    """What `load(dtype)` gives for the settings' dtype; for `auto` the fastest that keeps the vectors.

    `auto` stays at float32 where the model cannot compute in the faster one or loses too much in it.
    """
    dtype = pick_dtype(settings.dtype, device)
    if settings.dtype != "auto" or dtype == "float32" or weight_bytes(settings) > MOST_BYTES_AUTO:
        return load(dtype)
    exact = load("float32")
    try:
        reduced = load(dtype)
        cosine = lowest_cosine(exact.probe(), reduced.probe())
        reason = f"its lowest cosine to float32 is {cosine:.5f}"
    except ModelError as error:
        reduced, cosine, reason = exact, 0.0, str(error.__cause__)
    if cosine >= LEAST_COSINE_AUTO:
        return reduced
    logger.warning("model %s computes in float32, not %s: %s", settings.id, dtype, reason)
    return exact


def refuse_made_up(settings: ModelSettings, model: Any, encoder: Probed) -> None:
    """Raise ModelError where vectors depend on weights of `model`, a torch module, that its files do not hold.

    Many a model has some that nobody uses, such as a pooler's; whether they matter, only the vectors tell.
    """
    folder = locate_model(settings)
    weights = made_up_weights(model, folder)
    if not weights:
        return
    import torch

    own = encoder.probe()
    with torch.no_grad():
        for weight in weights.values():
            weight.copy_(torch.randn_like(weight))
    if lowest_cosine(own, encoder.probe()) >= LEAST_COSINE["bfloat16"]:
        return
    others = sorted(unread_names(model, folder))
    held = f", but {len(others)} by other names, such as {others[0]}" if others else ""
    raise ModelError(
        f"model {settings.id!r}: its files lack {len(weights)} of its parameters, such as {min(weights)}{held}; what "
        "is missing would be random numbers. Copy the model's files completely, or load the checkpoint where it was "
        "trained, and save the model itself, not what wraps it: model.save_pretrained(directory)"
    )


def accelerate_if_same(settings: ModelSettings, model: Any, batch_tokens: int, encoder: Probed) -> None:
    """Exchange the parts of `model`, on the CPU, for faster ones, if the encoder's vectors stay the same."""
    if encoder.dtype not in LEAST_COSINE:
        return
    own, undo = encoder.probe(), None
    try:
        undo = accelerate(model, batch_tokens)
        cosine = lowest_cosine(own, encoder.probe())
        reason = f"the lowest cosine to its own vectors is {cosine}"
    except Exception as error:  # what a model is made of cannot be known; its own parts work
        cosine, reason = 0.0, f"{type(error).__name__}: {error}"
    if not cosine >= LEAST_COSINE[encoder.dtype]:
        logger.warning("model %s keeps its own layers on the CPU: %s", settings.id, reason)
        if undo is not None:
            undo()


def refuse_missing_dimensions(settings: ModelSettings, dimensions: int) -> None:
    """Raise ModelError where the settings ask for more than the model's `dimensions`."""
    if settings.dimensions is not None and settings.dimensions > dimensions:
        raise ModelError(
            f"model.dimensions: {settings.dimensions} is more than the {dimensions} "
            f"that {settings.id!r} has; use at most that, or leave it out"
        )


def lowest_cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """The lowest cosine between rows of `a` and `b`, both (n, dimensions)."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-12)).min())


@contextlib.contextmanager
def cores_kept(settings: ModelSettings) -> Iterator[None]:
    """Leave the calling thread's number of cores as it was: it may run other models. Raises ModelError."""
    require(settings, "torch")
    import torch

    cores = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(cores)


class Cores:
    """How many cores a thread's products use: PyTorch keeps that for each thread, and sets it once."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._thread = threading.local()

    def use(self) -> None:
        """Set the calling thread's number of cores."""
        if not getattr(self._thread, "ready", False):
            import torch

            torch.set_num_threads(self.number)
            self._thread.ready = True

    def forget(self) -> None:
        """Set it again at every thread's next call."""
        self._thread = threading.local()
