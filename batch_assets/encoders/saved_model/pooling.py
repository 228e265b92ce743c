"""How a text's token vectors become one: as the model's files say, or as the settings do."""

from typing import Any

from batch_assets.encoders.saved_model.kinds import reads_both_ways
from batch_assets.encoders.weights import locate_model
from batch_assets.errors import ModelError
from batch_assets.plain_text import plain_logger
from batch_assets.settings.model import ModelSettings

_MODES = {"mean": "mean", "cls": "cls", "max": "max", "last_token": "lasttoken"}
"""The settings' words, and those of sentence-transformers."""

logger = plain_logger(__name__)


def set_pooling(model: Any, settings: ModelSettings) -> None:
    """Give a SentenceTransformer the pooling of the settings, in place of its own. Raises ModelError.

    Without one in the settings, a decoder that brings none is refused: sentence-transformers would
    take the mean over tokens of which each knows only those before it.
    """
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    if settings.pooling is None:
        if not (locate_model(settings) / "modules.json").is_file():
            _refuse_decoder(model, settings)
        return
    mode = _MODES[settings.pooling]
    for place, module in enumerate(model):
        if isinstance(module, Pooling):
            model[place] = Pooling(module.embedding_dimension, mode, module.include_prompt)  # pyright: ignore[reportArgumentType]
            return
    first = model[0]
    if not isinstance(first, Transformer) or first.module_output_name != "token_embeddings":
        raise ModelError(
            f"model.pooling: {settings.pooling!r} has nothing to pool in {settings.id!r}, which makes one vector of "
            f"a text without it ({', '.join(type(module).__name__ for module in model)}); leave it out"
        )
    model.insert(1, Pooling(first.get_embedding_dimension(), mode))  # pyright: ignore[reportArgumentType]


def note_mean(model: Any, settings: ModelSettings) -> None:
    """Say that a model that brings no pooling gets the mean of its tokens' vectors."""
    pooled = any(type(module).__name__ == "Pooling" for module in model)
    if pooled and settings.pooling is None and not (locate_model(settings) / "modules.json").is_file():
        logger.warning(
            "model %s says nothing of its pooling (there is no modules.json): a text's vector is the mean of its "
            "tokens', as sentence-transformers has it; model.pooling names another",
            settings.id,
        )


def _refuse_decoder(model: Any, settings: ModelSettings) -> None:
    from transformers.models.auto import modeling_auto

    config = model.config
    kind = getattr(config, "model_type", None)
    writes = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    fills = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if writes and not fills and not reads_both_ways(config.to_dict()):
        raise ModelError(
            f"model {settings.id!r} is a decoder ({kind}), whose tokens know only those before them, and its "
            "directory says nothing of how to pool them (there is no modules.json); set model.pooling (last_token is "
            "what decoders are mostly trained with), or copy the model's files completely"
        )
