"""Loading a model by sentence-transformers, and what has to be set right before it is fed.

The parity check's reference goes through the same door, so that both truncate alike.
"""

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batch_assets.encoders.saved_model.kinds import refuse_other_kinds
from batch_assets.encoders.saved_model.made_up import renaming
from batch_assets.encoders.saved_model.pooling import set_pooling
from batch_assets.encoders.text_tower import keep_text_tower, pad_as_trained
from batch_assets.encoders.texts_only import take_texts_only
from batch_assets.encoders.weights import locate_model
from batch_assets.errors import ModelError
from batch_assets.module_loading import load_modules
from batch_assets.settings.model import ModelSettings

_REPORTING = "transformers.modeling_utils"


def load_model(settings: ModelSettings, device: str, dtype: str) -> Any:
    """A SentenceTransformer in evaluation mode, its transformer in `dtype`. Raises ModelError."""
    folder = locate_model(settings)
    refuse_other_kinds(settings, images=False)
    require_libraries(settings)
    load_modules("torch", "sentence_transformers")

    with loading_errors(settings), loading_quietly():
        model = _load(folder, settings, device, dtype)
        if names := renaming(model, folder):
            model = _load(folder, settings, device, dtype, names)
        _refuse_without_texts(model, settings)
        take_texts_only(model, settings)
        set_pooling(model, settings)
        keep_text_tower(model)
        _check_vocabulary(model, settings)
        _set_padding(model)
        _set_limit(model, settings)
        pad_as_trained(model)
        return model.eval()


def _load(
    folder: Path, settings: ModelSettings, device: str, dtype: str, names: dict[str, str] | None = None
) -> Any:
    """What the directory holds; `names` are patterns in the names of its weights, and what takes their place."""
    import torch
    from sentence_transformers import SentenceTransformer

    renamed = {"key_mapping": names} if names else {}
    return SentenceTransformer(
        str(folder),
        device=device,
        trust_remote_code=settings.trust_remote_code,
        local_files_only=True,
        model_kwargs={"dtype": getattr(torch, dtype), "use_safetensors": True, **renamed},
    )


def require_libraries(settings: ModelSettings) -> None:
    """Raise ModelError where what loads models of texts is not installed."""
    require(settings, "torch", "transformers", "sentence_transformers")


def require(settings: ModelSettings, *libraries: str) -> None:
    """Raise ModelError where one of `libraries` is not installed."""
    for name in libraries:
        if importlib.util.find_spec(name) is None:
            raise ModelError(
                f"model {settings.id!r} cannot be loaded: {name} is not installed; install batch-assets[gpu]"
            )


def prompt_of(model: Any, settings: ModelSettings) -> str | None:
    """The text put before every record: the settings' own, else the model's default."""
    if settings.prompt is not None:
        return settings.prompt
    return model.prompts.get(model.default_prompt_name) if model.default_prompt_name is not None else None


@contextlib.contextmanager
def loading_errors(settings: ModelSettings, by: str = "SentenceTransformer(directory)") -> Iterator[None]:
    """Say which model could not be loaded, why, and what would help."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        if "trust_remote_code" in text or "custom code" in text:
            raise ModelError(
                f"model {settings.id!r} brings Python code of its own, which is not run unless you allow it: "
                f"read the code in {locate_model(settings)}, then set model.trust_remote_code: true "
                "(--trust-remote-code)"
            ) from error
        raise ModelError(
            f"model {settings.id!r} cannot be loaded: {type(error).__name__}: {_in_one_line(text)}; "
            f"check that {by} loads it and encodes with the installed versions"
        ) from error


def _in_one_line(text: str) -> str:
    """The first line, and the second where the first only announces it, as of weights that do not fit."""
    first, *others = text.splitlines()
    return f"{first} {others[0].strip()}" if first.endswith(":") and others else first


def _refuse_without_texts(model: Any, settings: ModelSettings) -> None:
    taken = getattr(model, "modalities", ["text"])
    if "text" not in taken:
        raise ModelError(
            f"model {settings.id!r} embeds no texts, but: {', '.join(map(str, taken))}; name a model for texts, or "
            "source.format: webdataset or img2dataset (--format) where the records are images"
        )


def _check_vocabulary(model: Any, settings: ModelSettings) -> None:
    """Refuse a tokenizer of special tokens only: transformers makes one up where the files are missing."""
    for tokenizer in _tokenizers(model):
        if hasattr(tokenizer, "all_special_tokens") and len(tokenizer) <= len(
            set(tokenizer.all_special_tokens)
        ):
            raise ModelError(
                f"model {settings.id!r}: {locate_model(settings)} holds no vocabulary, so that every word would be "
                "the same to it; copy the tokenizer's files too (tokenizer.json)"
            )


def _set_padding(model: Any) -> None:
    """Give a tokenizer without a padding token one, as decoders need; what fills the padding is masked."""
    for tokenizer in _tokenizers(model):
        if getattr(tokenizer, "pad_token", "") is None:
            tokenizer.pad_token = (
                tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
            )


def _set_limit(model: Any, settings: ModelSettings) -> None:
    """Set the truncation: `max_tokens`, else the model's own limit, never beyond its table of positions."""
    heeded = [_limited(module, settings) for module in _first_modules(model)]
    if settings.max_tokens is not None and not any(heeded):
        raise ModelError(
            f"model.max_tokens: {settings.max_tokens} cannot be had of {settings.id!r}, which takes texts whole "
            f"({type(model[0]).__name__}); leave it out"
        )


def _limited(module: Any, settings: ModelSettings) -> bool:
    """Set the truncation of one module that takes texts; False where it has none."""
    table, wanted, own = _positions(module), settings.max_tokens, getattr(module, "max_seq_length", None)
    if wanted is not None and table is not None and wanted > table:
        raise ModelError(
            f"model.max_tokens: {wanted} is more than the {table} that {settings.id!r} can take; use at most that"
        )
    tokenizer: Any = getattr(module, "tokenizer", None)
    special = tokenizer.num_special_tokens_to_add() if hasattr(tokenizer, "model_input_names") else 0
    if wanted is not None and wanted <= special:
        raise ModelError(
            f"model.max_tokens: {wanted} leaves no room for text beside the {special} special tokens of "
            f"{settings.id!r}; use at least {special + 1}"
        )
    limits = [limit for limit in (wanted if wanted is not None else own, table) if limit is not None]
    if limits and min(limits) != own:
        try:
            module.max_seq_length = min(limits)
        except AttributeError:  # static embeddings take texts of any length
            return False
    return True


def _first_modules(model: Any) -> list[Any]:
    """The modules of a SentenceTransformer that take texts: its first, or the first of each route of a Router."""
    routes = getattr(model[0], "sub_modules", None)
    return [model[0]] if routes is None else [route[0] for route in routes.values()]


def _tokenizers(model: Any) -> list[Any]:
    found = [getattr(module, "tokenizer", None) for module in _first_modules(model)]
    return [tokenizer for tokenizer in found if tokenizer is not None]


def _positions(module: Any) -> int | None:
    """How many tokens fit into a learned table of positions; None where the model has none."""
    import torch

    for part in module.modules():
        positions = getattr(part, "position_embeddings", getattr(part, "position_embedding", None))
        if isinstance(positions, torch.nn.Embedding):
            # RoBERTa and its kin count positions from padding_idx + 1, and then only so many are left.
            padding = getattr(part, "padding_idx", None)
            return positions.num_embeddings - (padding + 1 if isinstance(padding, int) else 0)
    return None


@contextlib.contextmanager
def loading_quietly() -> Iterator[None]:
    """Keep off the terminal what transformers shows of each load: bars, and a table of weights it made up or left.

    Weights that are made up are refused in words, where they matter.
    """
    from transformers.utils import logging as transformers_logging

    shown, reporting = transformers_logging.is_progress_bar_enabled(), logging.getLogger(_REPORTING)
    transformers_logging.disable_progress_bar()
    reporting.addFilter(_is_no_report)
    try:
        yield
    finally:
        reporting.removeFilter(_is_no_report)
        if shown:
            transformers_logging.enable_progress_bar()


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()
