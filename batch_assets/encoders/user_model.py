"""A user's own model: a directory with `config.json`, and `model.py` with a class `ModelImpl`.

What such a class owes, as existing services of this kind have it:

    class ModelImpl:
        def load(self): ...                 # weights to wherever they compute
        def warmup(self): ...               # optional
        def batch_size(self): return 16     # optional, also an attribute; else config.json's, else 16
        def encode(self, items): ...        # list of {"image": PIL image (RGB) or None, "text": str or None}
                                            # → as many vectors: lists, arrays, tensors, or one array

Its code runs in this process, so it is loaded only where the settings trust it (`weights.py`), and
one call at a time. Which device it uses is its own affair. A `batch_wait_s`, which is for services
that wait for requests, has no meaning here.
"""

import contextlib
import hashlib
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from batch_assets.encoders.answers import answered_vectors
from batch_assets.encoders.base import ImageItem, Prepared
from batch_assets.encoders.devices import available_cores
from batch_assets.encoders.guards import refuse_missing_dimensions
from batch_assets.encoders.image_files import BadImage, open_image, set_up
from batch_assets.encoders.preprocessing import probe_images
from batch_assets.encoders.weights import MODEL_FILE, locate_model
from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings
from batch_assets.sources.base import Fault

BATCH_RECORDS = 16
KEPT_PIXELS = 2_000_000
"""Larger images wait for their batch as files and are decoded again, so that few of them fill no memory."""

_lock = threading.Lock()
_folder: Path | None = None


class UserModelEncoder:
    """Implements `encoders.base.Encoder`; `load` makes one."""

    def __init__(
        self, model: Any, settings: ModelSettings, takes: Literal["text", "image"], batch: int, cores: int
    ) -> None:
        """Take over a ModelImpl that is loaded; `batch` is how many records it takes at once."""
        self.takes: Literal["text", "image"] = takes
        self.device, self.dtype, self.normalized = "own", "float32", settings.normalize
        self._model, self._settings, self._lock = model, settings, threading.Lock()
        self.threads, self.batch_tokens = 1, batch
        self.batch_records: int | None = batch
        self.prepare_threads = cores if takes == "image" else 1
        self.window_records = max(4 * batch, 64) if takes == "image" else 4096
        self.most_pixels = 10**9
        self._width = self._probe()
        self.dimensions = min(self._width, settings.dimensions or self._width)

    @classmethod
    def load(
        cls,
        settings: ModelSettings,
        takes: Literal["text", "image"],
        *,
        cores: int | None = None,
        most_pixels: int = 10**8,
    ) -> "UserModelEncoder":
        """Import and load the directory's model. Raises ModelError, also where it cannot embed a plain record."""
        folder = locate_model(settings).resolve()
        with _told(settings, "cannot be loaded"):
            model = _import(folder, settings).ModelImpl()
            model.load()
            if callable(getattr(model, "warmup", None)):
                model.warmup()
        batch = _batch_records(model, folder, settings)
        encoder = cls(model, settings, takes, batch, cores or available_cores())
        refuse_missing_dimensions(settings, encoder._width)
        encoder.most_pixels = most_pixels
        set_up(most_pixels)
        return encoder

    def prepare(self, items: Sequence[Any]) -> Prepared:
        """Decode image files, whole; texts stay as they are. What is no image is a fault."""
        if self.takes == "text":
            inputs: list[Any] = [{"image": None, "text": self._prompt + text} for text in items]
            return Prepared(inputs, np.ones(len(inputs), dtype=np.int32))
        return self._prepare_images(items)

    def encode(self, inputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Vectors of some records. Raises ModelError where the model's answer is none for them."""
        whole = [self._whole(each) for each in inputs]
        with self._lock:
            vectors = answered_vectors(self._encode(whole), len(whole), self._settings)
        if vectors.shape[1] != self._width:
            raise ModelError(
                f"model {self._settings.id!r}: encode gave vectors of {vectors.shape[1]} dimensions, "
                f"before of {self._width}; all must be alike"
            )
        vectors = np.ascontiguousarray(vectors[:, : self._settings.dimensions])
        if self.normalized:
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
            vectors = (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
        return vectors

    def _encode(self, records: list[dict[str, Any]]) -> Any:
        """The model's own answer. Records may fail by whatever its code raises; it does not end the process."""
        try:
            return self._model.encode(records)
        except SystemExit as error:
            raise ModelError(f"model {self._settings.id!r}: encode ended by SystemExit: {error}") from error

    @property
    def _prompt(self) -> str:
        return self._settings.prompt or ""

    def _prepare_images(self, items: Sequence[ImageItem]) -> Prepared:
        inputs: list[Any] = []
        faults: dict[int, Fault] = {}
        for position, item in enumerate(items):
            try:
                opened = open_image(item.content, self.most_pixels)
            except BadImage as error:
                inputs.append(None)
                faults[position] = error.fault
                continue
            kept = opened.image if opened.width * opened.height <= KEPT_PIXELS else item.content
            inputs.append({"image": kept, "text": item.text or None})
        counts = np.ones(len(inputs), dtype=np.int32)
        counts[list(faults)] = 0
        return Prepared(inputs, counts, faults)

    def _whole(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record with its image decoded."""
        if isinstance(record["image"], bytes):
            return {**record, "image": open_image(record["image"], self.most_pixels).image}
        return record

    def _probe(self) -> int:
        """Length of the model's own vectors, found by embedding a plain record."""
        records: list[dict[str, Any]] = [{"image": None, "text": self._prompt + "a"}]
        if self.takes == "image":
            # A model may ask for both; then images without a caption fail, and no others.
            records = [{"image": probe_images()[0], "text": text} for text in (None, "a")]
        *others, last = records
        for record in others:
            with contextlib.suppress(Exception):
                return self._embedded_width(record)
        with _told(self._settings, f"cannot embed a plain {self.takes}"):
            return self._embedded_width(last)

    def _embedded_width(self, record: dict[str, Any]) -> int:
        return answered_vectors(self._encode([record]), 1, self._settings).shape[1]


@contextlib.contextmanager
def _told(settings: ModelSettings, what: str) -> Iterator[None]:
    """Say which user's model failed at what, whatever its code raises."""
    try:
        yield
    except ModelError:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise ModelError(
            f"model {settings.id!r} {what}: its {MODEL_FILE} raised {type(error).__name__}: {text}; "
            "try its ModelImpl by itself, in this environment"
        ) from error


def _import(folder: Path, settings: ModelSettings) -> Any:
    """The directory's model.py as a module of its own name; files beside it can be imported by it.

    Only one such directory is on the path: of another one before, modules of the same names must not
    be found.
    """
    global _folder  # noqa: PLW0603 - sys.path and sys.modules are the process's, too
    name = "batch_assets_user_model_" + hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    with _lock:
        if _folder is not None:
            _forget(_folder)
        _folder = folder
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        # As a package, so that `from .helper import …` finds files beside it, too.
        spec = importlib.util.spec_from_file_location(
            name, folder / MODEL_FILE, submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    if not hasattr(module, "ModelImpl"):
        raise ModelError(f"model {settings.id!r}: its {MODEL_FILE} defines no class ModelImpl; name it so")
    return module


def _forget(folder: Path) -> None:
    """Take a directory off the import path, with the modules that came from it."""
    sys.path[:] = [entry for entry in sys.path if entry != str(folder)]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None and Path(file).is_relative_to(folder):
            del sys.modules[name]


def _batch_records(model: Any, folder: Path, settings: ModelSettings) -> int:
    """Records in a batch: as the class says, else its config.json, else 16."""
    with _told(settings, "does not tell its batch size"):
        size = getattr(model, "batch_size", None)
        size = size() if callable(size) else size
        if size is None:
            size = _read_config(folder, settings).get("batch_size")
        number = BATCH_RECORDS if size is None else int(cast("Any", size))
    if number < 1:
        raise ModelError(f"model {settings.id!r}: batch_size is {number}; it must be at least 1")
    return number


def _read_config(folder: Path, settings: ModelSettings) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"model {settings.id!r}: its config.json is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"model {settings.id!r}: its config.json holds no object; {{}} will do")
    return config
