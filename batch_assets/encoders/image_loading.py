"""Loading a vision model by transformers, and what of its outputs is an image's vector.

Whose vector, by kind of model:

- two towers (CLIP, SigLIP, Chinese-CLIP, ALIGN, …): `get_image_features`, the projection into the
  space that the texts share; the text tower is dropped as soon as the files are read.
- a vision tower with its projection alone (`CLIPVisionModelWithProjection`): `image_embeds`.
- image models (DINOv2, ViT, BEiT, ConvNeXt, Swin, ResNet, …): `pooler_output` as the family defines
  it (DINOv2: the class token after the last layer norm; ConvNets: the mean over the image); where a
  model has none, or its files do not hold the pooler's weights (a ViT saved as a classifier), the
  class token of the last hidden state.

The parity check's reference takes the same outputs of the same model in float32.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_assets.encoders.loading import loading_errors, loading_quietly, require
from batch_assets.encoders.saved_model.kinds import refuse_other_kinds
from batch_assets.encoders.saved_model.made_up import made_up_weights, renaming
from batch_assets.encoders.weights import locate_model, model_folder
from batch_assets.errors import ModelError
from batch_assets.module_loading import load_modules
from batch_assets.settings.model import ModelSettings

LOADED_BY = "transformers.AutoModel.from_pretrained(directory)"
_TEXT_PARTS = ("text_model", "text_projection", "text_encoder", "text_embed")
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass
class ImageModel:
    """A vision model in evaluation mode and its own image processor, by PIL."""

    model: Any
    processor: Any
    two_towers: bool
    pooled: bool = True

    def __call__(self, features: dict[str, Any]) -> tuple[Any, int]:
        """Vectors (n, dimensions), float32, and how many tokens the model makes of an image."""
        compute = self.model.get_image_features if self.two_towers else self.model
        outputs = compute(**features)
        if not hasattr(outputs, "keys"):  # older releases of transformers give the tensor itself
            return outputs.float(), 1
        last = outputs.get("last_hidden_state")
        vectors = last
        for name in ("pooler_output", "image_embeds"):
            if self.pooled and outputs.get(name) is not None:
                vectors = outputs[name]
        if vectors.dim() == 3:  # (n, tokens, width): the class token comes first
            vectors = vectors[:, 0]
        return vectors.flatten(1).float(), _tokens(last)


def load_image_model(settings: ModelSettings, device: str, dtype: str) -> ImageModel:
    """The model on `device` in `dtype`, with every weight that its vectors depend on. Raises ModelError."""
    folder = model_folder(locate_model(settings))
    refuse_other_kinds(settings, images=True)
    require(settings, "torch", "transformers", "PIL")
    if not any((folder / name).is_file() for name in _PROCESSOR_FILES):
        raise ModelError(
            f"model {settings.id!r}: {folder} holds no {_PROCESSOR_FILES[0]}, so it takes no images; name a "
            "model for images (CLIP, SigLIP, DINOv2, ViT, …), or copy its files completely"
        )
    load_modules("torch", "transformers")

    with loading_errors(settings, LOADED_BY), loading_quietly():
        model = _load(folder, settings, dtype)
        if names := renaming(model, folder):
            model = _load(folder, settings, dtype, names)
        two_towers = hasattr(model, "get_image_features") and hasattr(model, "get_text_features")
        if two_towers:
            for name in _TEXT_PARTS:
                if getattr(model, name, None) is not None:
                    setattr(model, name, None)
        loaded = ImageModel(model.to(device).eval(), load_processor(folder, settings), two_towers)
        made_up = made_up_weights(model, folder)
        if not two_towers and made_up and all("pooler" in name for name in made_up):
            loaded.pooled = False
        return loaded


def _load(folder: Path, settings: ModelSettings, dtype: str, names: dict[str, str] | None = None) -> Any:
    """What the directory holds; `names` are patterns in the names of its weights, and what takes their place."""
    import torch

    return _model_class(folder).from_pretrained(
        str(folder),
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=settings.trust_remote_code,
        **({"key_mapping": names} if names else {}),
    )


def load_processor(folder: Path, settings: ModelSettings) -> Any:
    """The model's own image processor, the one that computes by PIL: the same everywhere."""
    import transformers

    options = {"local_files_only": True, "trust_remote_code": settings.trust_remote_code}
    if int(transformers.__version__.split(".", maxsplit=1)[0]) >= 5:
        return transformers.AutoImageProcessor.from_pretrained(str(folder), backend="pil", **options)
    return transformers.AutoImageProcessor.from_pretrained(str(folder), use_fast=False, **options)


def _model_class(folder: Path) -> Any:
    """AutoModel, or the vision tower's own class where that is what was saved."""
    import transformers

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name in config.get("architectures") or ():
        if name.endswith("VisionModelWithProjection") and hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.AutoModel


def _tokens(last: Any) -> int:
    """Tokens, or places of a feature map, in a last hidden state; 1 where there is none."""
    if last is None or last.dim() not in (3, 4):
        return 1
    return int(last.shape[1] if last.dim() == 3 else last.shape[2] * last.shape[3])
