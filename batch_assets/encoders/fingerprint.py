"""The digest of all that decides a vector, made without loading the model.

Two pipelines of one fingerprint store the same vectors for the same text. What only decides
how fast they are made (device, batch size) is not in it.
"""

import hashlib
import json
from typing import Any

from batch_assets.encoders.saved_model.kinds import refuse_other_kinds
from batch_assets.encoders.saved_model.sides import as_saved, route_differs
from batch_assets.encoders.weights import (
    digest_file,
    is_local,
    is_user_model,
    locate_model,
    model_files,
    user_model_files,
)
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import PipelineSettings

VERSION = 1
"""Raised when the encoder's own arithmetic changes what it stores."""

_DECIDING = (
    ".json",
    ".txt",
    ".model",
    ".safetensors",
    ".py",
    ".jinja",
    ".spm",
    ".bpe",
    ".vocab",
    ".tiktoken",
)
"""Suffixes of files that configs, tokenizers, weights and the model's own code come in."""
_SILENT = frozenset({"data_config.json", "trainer_state.json", "train_results.json", "eval_results.json"})


def fingerprint(settings: PipelineSettings) -> str:
    """16 hex digits over model files, model settings, which text is embedded, and the stored type.

    Raises ModelError where the model is not to be had.
    """
    source, model = settings.source, settings.model
    refuse_other_kinds(model, images=source.images)
    parts: dict[str, Any] = {
        "version": VERSION,
        "model": _deciding(model, images=source.images),
        "name": None if is_local(model) else [model.id, model.revision],
        "files": _digests(model),
        "text": source.text_template or [*source.text_columns],
        "stored": settings.output.dtype,
    }
    if not source.images and route_differs(model):
        parts["route"] = "document"
    if source.images:
        # A user's own model is given the caption too; other models see the image alone.
        parts["records"] = "images"
        parts["text"] = parts["text"] if is_user_model(model) else None
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _deciding(model: ModelSettings, *, images: bool) -> dict[str, Any]:
    """The settings that decide a vector, with what the model's own directory says where they do not."""
    resolved = as_saved(model)
    if images:  # of which only a text beside them may have a prompt
        resolved = resolved.model_copy(update={"prompt": model.prompt})
    left_out = {"id", "revision", "trust_remote_code", "query_prompt"}
    # Fields that came later count where they are set, so that what was embedded before stays what it is.
    return resolved.model_dump(exclude=left_out | ({"pooling"} if model.pooling is None else set()))


def _digests(model: ModelSettings) -> dict[str, str]:
    folder = locate_model(model)
    if is_user_model(model):
        return {path.relative_to(folder).as_posix(): digest_file(path) for path in user_model_files(folder)}
    return {
        path.relative_to(folder).as_posix(): digest_file(path)
        for path in model_files(folder)
        if path.suffix in _DECIDING and path.name not in _SILENT
    }
