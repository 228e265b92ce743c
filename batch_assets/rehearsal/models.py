"""Which models the rehearsal has: from a model id, ARN or inference profile to what stands for it."""

from batch_assets.rehearsal.fake_chat import Claude, Converse
from batch_assets.rehearsal.fake_models import FakeModel, NovaMultimodal, TitanMultimodal, TitanText

# Model ids that have batch quotas, and the names that quotas call them by.
MODEL_NAMES = {
    "amazon.titan-embed-text-v2:0": "Titan Text Embeddings V2",
    "amazon.titan-embed-image-v1": "Titan Multimodal Embeddings G1",
    "amazon.nova-2-multimodal-embeddings-v1:0": "Nova Multimodal Embeddings V1",
    "amazon.nova-lite-v1:0": "Nova Lite V1",
    "anthropic.claude-3-haiku-20240307-v1:0": "Claude 3 Haiku",
    "anthropic.claude-haiku-4-5-20251001-v1:0": "Claude Haiku 4.5",
    "anthropic.claude-sonnet-4-5-20250929-v1:0": "Claude Sonnet 4.5",
}
CHAT_MAKERS = (
    "anthropic.claude-", "amazon.nova-", "meta.llama", "mistral.", "qwen.", "openai.gpt-oss-", "deepseek.",
)  # fmt: skip
PROFILE_PREFIXES = ("us.", "eu.", "apac.", "jp.", "au.", "global.", "us-gov.")


def base_model(model_id: str) -> str:
    """The id of the model itself: quotas and slots are counted by it."""
    name = model_id.rsplit("/", 1)[-1]
    for prefix in PROFILE_PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def model_for(model_id: str, invocation_type: str = "InvokeModel") -> FakeModel | None:
    """What stands for the model; None where it is unknown, or does not take that type of invocation."""
    name = base_model(model_id)
    embedding: dict[str, FakeModel] = {
        "amazon.titan-embed-text-v2:0": TitanText(),
        "amazon.titan-embed-image-v1": TitanMultimodal(),
        "amazon.nova-2-multimodal-embeddings-v1:0": NovaMultimodal(),
    }
    if name in embedding:
        return embedding[name] if invocation_type == "InvokeModel" else None
    if not name.startswith(CHAT_MAKERS):
        return None
    if invocation_type == "Converse":
        return Converse()
    return Claude() if name.startswith("anthropic.") else None


def model_arn(model_id: str, region: str) -> str:
    """The foundation model's ARN, as events name it."""
    return f"arn:aws:bedrock:{region}::foundation-model/{base_model(model_id)}"
