"""How many tokens a vision model makes of an image, by its files alone: known without torch, for estimates."""

import contextlib
import json
from typing import Any

from batch_assets.encoders.weights import is_user_model, locate_model, model_folder
from batch_assets.settings.model import ModelSettings

_WITHOUT_CLASS_TOKEN = ("siglip", "siglip2", "siglip_vision_model", "siglip2_vision_model")


def patches(model: ModelSettings) -> int:
    """Patches of one image and the special tokens beside them; 1 where the files do not tell. Raises ModelError."""
    if is_user_model(model):
        return 1
    config = read_config(model)
    vision = config.get("vision_config") or config
    edge, patch = _edge(model) or vision.get("image_size"), vision.get("patch_size")
    if not isinstance(edge, int) or not isinstance(patch, int) or not 0 < patch <= edge:
        return 1
    special = 0 if config.get("model_type") in _WITHOUT_CLASS_TOKEN else 1
    return (edge // patch) ** 2 + special + int(vision.get("num_register_tokens") or 0)


def read_config(model: ModelSettings) -> dict[str, Any]:
    """A model's config.json; empty where it has none. Raises ModelError."""
    return _read(model, "config.json")


def _edge(model: ModelSettings) -> int | None:
    """The edge of the pixels that the image processor makes, which may be less than the model was built for."""
    processor = _read(model, "preprocessor_config.json")
    for name in ("crop_size", "size"):
        size = processor.get(name)
        size = size.get("height") if isinstance(size, dict) else size
        if isinstance(size, int) and (name != "crop_size" or processor.get("do_center_crop")):
            return size
    return None


def _read(model: ModelSettings, name: str) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((model_folder(locate_model(model)) / name).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
