"""What a directory saved by sentence-transformers says beside its weights: read from its JSON files alone.

Known without torch, for the fingerprint and before anything is loaded. sentence-transformers calls
the two sides of an asymmetric model its tasks: `document` is what records are, `query` what they are
searched by.
"""

import ast
import contextlib
from pathlib import Path
from typing import Any, Literal

from batch_assets.encoders.saved_model.json_files import read_modules, read_object
from batch_assets.encoders.weights import is_user_model, locate_model
from batch_assets.plain_text import plain_logger
from batch_assets.settings.model import ModelSettings

Side = Literal["document", "query"]
MODEL_TYPE = "SentenceTransformer"

logger = plain_logger(__name__)


def as_saved(model: ModelSettings, side: Side = "document") -> ModelSettings:
    """The settings with the dimensions and the prompt that the model's own directory names, where they name none.

    The prompt of documents is that of `encode`, the default one; where a model names no default but a
    prompt `document`, that of `encode_document`. The prompt of a query is that of `encode_query`,
    which falls back on none. Raises ModelError.
    """
    if is_user_model(model):
        prompt = model.query_prompt if side == "query" and model.query_prompt is not None else model.prompt
        return model.model_copy(update={"prompt": prompt})
    config = read_saved(model)
    prompts = saved_prompts(model)
    if side == "query":
        prompt = model.query_prompt if model.query_prompt is not None else prompts.get("query", "")
    elif model.prompt is None and config.get("default_prompt_name") is None:
        prompt = prompts.get("document") or None
    else:
        prompt = model.prompt
    saved = config.get("truncate_dim")
    dimensions = (
        saved if model.dimensions is None and isinstance(saved, int) and saved > 0 else model.dimensions
    )
    return model.model_copy(update={"prompt": prompt, "dimensions": dimensions})


def note_unused_prompt(model: ModelSettings) -> None:
    """Say that a model names a prompt for passages that sentence-transformers puts before none."""
    prompts, default = saved_prompts(model), read_saved(model).get("default_prompt_name")
    if model.prompt is not None or default is not None or prompts.get("document"):
        return
    for name in ("passage", "corpus"):
        if prompts.get(name):
            logger.warning(
                "model %s names a prompt %r (%r) and none as its default, so none is put before the records; "
                "model.prompt says which, and '' that there is to be none",
                model.id,
                name,
                prompts[name],
            )
            return


def saved_prompts(model: ModelSettings) -> dict[str, str]:
    """The prompts that a model's directory names. Raises ModelError."""
    found = read_saved(model).get("prompts") or {}
    return {name: text for name, text in found.items() if isinstance(text, str)}


def read_saved(model: ModelSettings) -> dict[str, Any]:
    """config_sentence_transformers.json, as far as sentence-transformers heeds it: of a saved SentenceTransformer."""
    folder = locate_model(model)
    config = read_object(folder / "config_sentence_transformers.json")
    heeded = (folder / "modules.json").is_file() and config.get("model_type", MODEL_TYPE) == MODEL_TYPE
    return config if heeded else {}


def task_of(model: ModelSettings, side: Side) -> str | None:
    """The task to name to a Router, so that it takes the route of that side; None where it has none for it."""
    router = _router(locate_model(model))
    return side if _route(router, side) is not None else None


def route_differs(model: ModelSettings) -> bool:
    """Whether documents take another route through the model than texts of which nothing is said."""
    router = _router(locate_model(model))
    route = _route(router, "document")
    return route is not None and route != _route(router, None)


def _router(folder: Path) -> dict[str, Any]:
    """The configuration of a model's Router; empty where it has none."""
    for entry in read_modules(folder):
        if str(entry.get("type", "")).endswith((".Router", ".Asym")):
            place = folder / str(entry.get("path", ""))
            return read_object(place / "router_config.json") or read_object(place / "config.json")
    return {}


def _route(router: dict[str, Any], task: str | None) -> str | None:
    """The route of texts of a task, by the order of sentence-transformers' Router; None where it knows none."""
    parameters, routes = router.get("parameters") or {}, router.get("structure") or {}
    mappings: dict[Any, str] = {}
    for key, route in (parameters.get("route_mappings") or {}).items():
        with contextlib.suppress(ValueError, SyntaxError):
            mappings[ast.literal_eval(key)] = route
    for key in ((task, "text"), (task, None), (None, "text"), (None, None)):
        if key in mappings:
            return mappings[key]
    for name in (task, "text"):
        if name in routes:
            return name
    if task is not None:
        return None
    first = next(iter(routes), None) if parameters.get("allow_empty_key", True) else None
    return parameters.get("default_route") or first
