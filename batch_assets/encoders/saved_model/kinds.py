"""Kinds of model that are no embedders of texts, told by their config files before a weight is loaded.

sentence-transformers loads nearly every transformer, drops what it was trained for (a classifier's
head, a vocabulary's weights, token by token matching) and averages what is left. Vectors come of it,
and nobody would notice. So such a model is refused, or pooled as `model.pooling` says. A bare encoder
(`BertModel`, `…ForMaskedLM`) has no pooling of its own either; there the mean is what everybody means.
"""

import re
from pathlib import Path
from typing import Any

from batch_assets.encoders.saved_model.json_files import read_modules, read_object
from batch_assets.encoders.saved_model.sides import MODEL_TYPE
from batch_assets.encoders.weights import is_user_model, locate_model, model_folder
from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings

_LATE_TYPES, _LATE_MODULES = ("MultiVectorEncoder", "ColBERT"), ("MultiVectorMask", "TokenPooling")
_LATE_KEYS = ("query_prefix", "document_prefix", "attend_to_expansion_tokens", "skiplist_words")
"""What PyLate has written into config_sentence_transformers.json since its first release."""
_SPARSE_MODULES = (
    "SpladePooling",
    "SparseStaticEmbedding",
    "SparseAutoEncoder",
    "MLMTransformer",
    "CSRSparsity",
)
_HEADS_OF_ENCODERS = ("MaskedLM", "PreTraining", "TextEncoding")
"""What encoders are trained with before they are made anything of."""
_ENCODER_OF_TWO = ("t5", "mt5", "umt5", "longt5")
"""Models that write texts, of which sentence-transformers loads the encoder alone."""
_WRITERS = re.compile(
    r"For(CausalLM|ConditionalGeneration|Seq2SeqLM|ImageTextToText)$|LMHead(Model)?$|DoubleHeadsModel$"
)
_POOLING = (
    "or set model.pooling in a defs.yaml (mean, cls, max or last_token) to have the vectors of its tokens pooled "
    "all the same"
)


def refuse_other_kinds(model: ModelSettings, *, images: bool) -> None:
    """Raise ModelError for a model that embeds no texts, or no `images`, in vectors of one each."""
    if is_user_model(model):
        if model.pooling is not None:
            raise ModelError(
                f"model.pooling: {model.pooling!r} means nothing to {model.id!r}, whose own code makes the vectors; "
                "leave it out"
            )
        return
    folder = locate_model(model)
    saved = read_object(folder / "config_sentence_transformers.json")
    modules = [str(entry.get("type", "")) for entry in read_modules(folder)]
    config = read_object(model_folder(folder) / "config.json")
    architectures = [str(name) for name in config.get("architectures") or ()]
    _refuse_late_interaction(model, saved, modules, architectures)
    if images and model.pooling is not None:
        raise ModelError(
            f"model.pooling: {model.pooling!r} pools the vectors of a text's tokens, and the records are images; "
            "leave it out"
        )
    if images or model.pooling is not None:
        return
    kind = saved.get("model_type", MODEL_TYPE)
    task = _task(folder, modules)
    if kind == "SparseEncoder" or _named(modules, _SPARSE_MODULES) or task == "fill-mask":
        raise ModelError(
            f"model {model.id!r} is a sparse encoder, such as SPLADE: it weighs the words of its vocabulary, and makes "
            f"no dense vectors; name a model that does, {_POOLING}"
        )
    if kind == "CrossEncoder" or _named(modules, ("LogitScore",)) or task == "sequence-classification":
        raise ModelError(
            f"model {model.id!r} is a cross encoder: it scores pairs of texts, and makes no vector of one; name a "
            f"model for embeddings, {_POOLING}"
        )
    if kind != MODEL_TYPE:
        raise ModelError(
            f"model {model.id!r} was saved as {kind!r}, not as a SentenceTransformer; name a model for embeddings, "
            f"{_POOLING}"
        )
    if not modules:
        _refuse_heads(model, config, architectures)


def _refuse_late_interaction(
    model: ModelSettings, saved: dict[str, Any], modules: list[str], architectures: list[str]
) -> None:
    late = (
        saved.get("model_type") in _LATE_TYPES
        or not saved.keys().isdisjoint(_LATE_KEYS)
        or any(name.startswith("pylate.") for name in modules)
        or _named(modules, _LATE_MODULES)
        or any(name == "HF_ColBERT" or re.search(r"^Col\w+ForRetrieval$", name) for name in architectures)
    )
    if late:
        raise ModelError(
            f"model {model.id!r} is one of late interaction (ColBERT, ColPali, PyLate): it makes a vector of every "
            "token and matches token by token, so that a record has no one vector; name a model for embeddings"
        )


def _refuse_heads(model: ModelSettings, config: dict[str, Any], architectures: list[str]) -> None:
    """Refuse a bare transformers model that was trained for something else than its token vectors."""
    for name in architectures:
        if _WRITERS.search(name) and not reads_both_ways(config):
            raise ModelError(
                f"model {model.id!r} is a {name}: it writes texts, and its directory says nothing of how to pool the "
                f"vectors of tokens (there is no modules.json); name a model for embeddings, {_POOLING}"
            )
        head = re.search(r"For([A-Z]\w+)$", name)
        embeds = head is None or head[1] in _HEADS_OF_ENCODERS or "Embedding" in head[1]
        if head and not embeds and not _WRITERS.search(name):
            raise ModelError(
                f"model {model.id!r} is a {name}: what it was trained for is its head, which makes no vector of a "
                f"text; name a model for embeddings, {_POOLING}"
            )


def reads_both_ways(config: dict[str, Any]) -> bool:
    """Whether a token knows those behind it, too, by the model's configuration."""
    return (
        config.get("model_type") in _ENCODER_OF_TWO
        or config.get("is_causal") is False
        or config.get("use_bidirectional_attention") is True
    )


def _task(folder: Path, modules: list[str]) -> str:
    """What the transformer of a saved model is loaded for."""
    config = read_object(model_folder(folder) / "sentence_bert_config.json") if modules else {}
    return str(config.get("transformer_task", "feature-extraction"))


def _named(modules: list[str], names: tuple[str, ...]) -> bool:
    return any(module.rpartition(".")[2] in names for module in modules)
