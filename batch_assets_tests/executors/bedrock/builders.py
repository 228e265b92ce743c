"""Pipelines and result lines for tests of Bedrock's data plane."""

from typing import Any

import orjson
import pyarrow as pa

from batch_assets.executors.aws.requests import record_id
from batch_assets.executors.bedrock.families.base import Family
from batch_assets.executors.bedrock.families.registry import family_for
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sources.base import Records

TITAN = "amazon.titan-embed-text-v2:0"
CLAUDE = "us.anthropic.claude-3-5-haiku-20241022-v1:0"
NOVA_CHAT = "us.amazon.nova-lite-v1:0"
DIMENSIONS = 256


def pipeline(
    model_id: str = TITAN, *, executor: dict[str, Any] | None = None, **fields: Any
) -> PipelineSettings:
    """A pipeline that asks `model_id`; `executor` are further fields of it."""
    role = "arn:aws:iam::123456789012:role/batch"
    values: dict[str, Any] = {
        "name": "texts",
        "source": {"uri": "texts.jsonl"},
        "output": {"root": "out"},
        "executor": {"type": "bedrock", "role_arn": role, "model_id": model_id, **(executor or {})},
    }
    return PipelineSettings.model_validate(values | fields)


def family(model_id: str = TITAN, **fields: Any) -> Family:
    if model_id == TITAN:
        fields.setdefault("model", {"dimensions": DIMENSIONS})
    return family_for(pipeline(model_id, **fields))


def records_of(texts: list[str], first: int = 0) -> Records:
    ordinals = list(range(first, first + len(texts)))
    return Records(
        ordinals=ordinals,
        record_ids=[f"id-{ordinal}" for ordinal in ordinals],
        source_files=["part.jsonl"] * len(texts),
        source_rows=ordinals,
        texts=texts,
        columns=pa.RecordBatch.from_pylist([{}] * len(texts)),
    )


def unit(axis: int, dimensions: int = DIMENSIONS) -> list[float]:
    """The vector along one axis."""
    return [1.0 if place == axis % dimensions else 0.0 for place in range(dimensions)]


def titan_output(ordinal: int) -> dict[str, Any]:
    return {"embedding": unit(ordinal), "inputTextTokenCount": ordinal + 1}


def line(ordinal: int | str, **parts: Any) -> bytes:
    """A result line; without parts, a good one."""
    record = ordinal if isinstance(ordinal, str) else record_id(ordinal)
    if not parts:
        assert isinstance(ordinal, int)
        parts = {"modelOutput": titan_output(ordinal)}
    return orjson.dumps({"recordId": record, "modelInput": {"inputText": f"text {ordinal}"}, **parts})


def error(code: Any, message: str = "", **flags: bool) -> dict[str, Any]:
    return {"errorCode": code, "errorMessage": message, **flags}
