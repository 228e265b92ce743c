"""What embeds a record."""

from typing import Literal

from pydantic import Field

from batch_assets.settings.base import Settings


class ModelSettings(Settings):
    """What embeds a record. Every field but query_prompt and trust_remote_code is part of the fingerprint."""

    id: str = Field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        description="A model id of the Hugging Face hub, or a local directory.",
    )
    revision: str | None = Field(default=None, description="The hub's revision: branch, tag or commit.")
    prompt: str | None = Field(
        default=None,
        description='Text put before every record, such as "passage: "; by default the model\'s own.',
    )
    query_prompt: str | None = Field(
        default=None,
        description='Text put before what is searched for, such as "query: "; by default the model\'s own.',
    )
    pooling: Literal["mean", "cls", "max", "last_token"] | None = Field(
        default=None,
        description="How the vectors of a text's tokens become one; by default as the model's own files say.",
    )
    dimensions: int | None = Field(
        default=None,
        ge=1,
        description="Keep only the first so many dimensions (Matryoshka models); by default as the model was saved.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Precision of the computation; auto is bfloat16 where the processor computes it "
        "(CUDA, AMX, avx512_bf16), float32 elsewhere.",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Truncate texts to so many tokens; by default the model's own limit."
    )
    normalize: bool = Field(default=True, description="Scale every vector to length 1.")
    trust_remote_code: bool = Field(
        default=False, description="Allow the model directory's own Python code to run."
    )
