"""From a model's id to the family that knows how to ask it. A new family is added to the list."""

from batch_assets.errors import ConfigurationError
from batch_assets.executors.bedrock.families.base import Family
from batch_assets.executors.bedrock.families.claude import Claude
from batch_assets.executors.bedrock.families.converse import Converse
from batch_assets.executors.bedrock.families.nova_multimodal import NovaMultimodal
from batch_assets.executors.bedrock.families.titan_multimodal import TitanMultimodal
from batch_assets.executors.bedrock.families.titan_text import TitanText
from batch_assets.executors.bedrock.model_ids import base_model_id
from batch_assets.settings.bedrock import BedrockExecutorSettings
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import PipelineSettings

FAMILIES: tuple[type[Family], ...] = (TitanText, TitanMultimodal, NovaMultimodal, Claude, Converse)
# Embedding models that Bedrock has and runs in no batch job, so far as its quotas and lists tell.
_NO_BATCH = ("cohere.embed", "amazon.titan-embed-text-v1", "amazon.titan-embed-g1-text")


def family_for(settings: PipelineSettings) -> Family:
    """The family of `executor.model_id`, set up as the pipeline wants it.

    Any other chat model can be asked by Converse, where `task` says generate. Raises
    ConfigurationError for a model that no family knows, and for a setting that it cannot have.
    """
    executor = settings.executor
    assert isinstance(executor, BedrockExecutorSettings), executor.type
    own_name = settings.model.id
    if own_name not in (ModelSettings.model_fields["id"].default, executor.model_id):
        raise ConfigurationError(
            f"model.id: {own_name!r} is not {executor.model_id!r}, which executor.model_id names; leave model.id out"
        )
    base = base_model_id(executor.model_id)
    if base.startswith(_NO_BATCH):
        raise ConfigurationError(
            f"executor.model_id: {executor.model_id!r} is not offered for batch inference; use {_embedding_models()}"
        )
    # The longest prefix: Nova has chat models and an embedding model.
    found = [
        (len(prefix), family) for family in FAMILIES for prefix in family.prefixes if base.startswith(prefix)
    ]
    if found:
        return max(found, key=lambda match: match[0])[1].of(settings)
    if settings.task == "generate":
        return Converse.of(settings)
    known = ", ".join(prefix for family in FAMILIES for prefix in family.prefixes)
    raise ConfigurationError(
        f"executor.model_id: {executor.model_id!r} is of no known family ({known}); write task: generate for another "
        f"chat model, and for vectors use {_embedding_models()}"
    )


def _embedding_models() -> str:
    *first, last = [prefix for family in FAMILIES if family.task == "embed" for prefix in family.prefixes]
    return f"{', '.join(first)} or {last}"
