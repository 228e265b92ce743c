"""Models of two towers, texts and images in one space, where only their texts are wanted.

sentence-transformers loads and runs them as it does other models; what it does not know is that
SigLIP reads every text at full length, its padding included.
"""

import json
from typing import Any

from batch_assets.encoders.weights import locate_model, model_folder
from batch_assets.settings.model import ModelSettings

_IMAGE_PARTS = ("vision_model", "visual_projection")
_FULL_LENGTH = ("siglip", "siglip2")
"""Kinds of model that are trained on texts padded to the limit, without a mask over the padding."""


def has_text_tower(settings: ModelSettings) -> bool:
    """Whether a model embeds both images and texts, by its config. Raises ModelError."""
    file = model_folder(locate_model(settings)) / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return "text_config" in config and "vision_config" in config


def keep_text_tower(model: Any) -> None:
    """Give back the memory of a SentenceTransformer's image tower, where it has one."""
    transformer = getattr(model[0], "model", None)
    if hasattr(transformer, "get_text_features"):
        for name in _IMAGE_PARTS:
            if getattr(transformer, name, None) is not None:
                setattr(transformer, name, None)


def pad_as_trained(model: Any) -> None:
    """Have a SentenceTransformer, whose limit is set, pad every text to that limit where its model needs it."""
    config = getattr(getattr(model[0], "model", None), "config", None)
    if getattr(config, "model_type", None) in _FULL_LENGTH and model.max_seq_length is not None:
        model[0].processing_kwargs = {"text": {"padding": "max_length", "max_length": model.max_seq_length}}


def full_length(transformer: Any) -> int | None:
    """The number of tokens that every text is padded to by `pad_as_trained`; None where it is not."""
    text = transformer.processing_kwargs.get("text", {})
    return text.get("max_length") if text.get("padding") == "max_length" else None
