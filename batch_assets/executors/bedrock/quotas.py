"""How much Bedrock takes at once, as Service Quotas tells it for an account, a region and a model.

The values drift (10, 20 and 100 jobs at once have been seen within two years), so they are
asked for; what stands here is for where they cannot be read. YAML overrides both.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from batch_assets.executors.aws.errors import error_code, error_message
from batch_assets.plain_text import plain_logger

SERVICE = "bedrock"
logger = plain_logger(__name__)


@dataclass(frozen=True)
class Quotas:
    """Limits of batch inference with one model. Bytes count the request files."""

    jobs: int = 20
    records_per_job: int = 50_000
    records_per_file: int = 50_000
    min_records: int = 100
    file_bytes: int = 10**9
    job_bytes: int = 5 * 10**9


# How each quota's name begins; the model's name ends it ("… for Titan Text Embeddings V2").
_NAMES = {
    "jobs": r"sum of in-progress and submitted batch inference jobs using a (base|foundation) model",
    "records_per_job": r"records per batch inference job",
    "records_per_file": r"records per input file per batch inference job",
    "min_records": r"minimum number of records per batch inference job",
    "file_bytes": r"batch inference input file size",
    "job_bytes": r"batch inference job size",
}
_CODES = {
    "titantextembeddingsv2": {
        "jobs": "L-1AC1CABC", "records_per_job": "L-AAC5F6D6", "records_per_file": "L-D1151D45",
        "min_records": "L-6F2B2616", "file_bytes": "L-3CAACDCF",
    },
    "titanmultimodalembeddingsg1": {
        "jobs": "L-7F2C6F33", "records_per_job": "L-3BD2251E", "records_per_file": "L-81E26054",
        "min_records": "L-1A69C08F", "file_bytes": "L-447BB329", "job_bytes": "L-4C584163",
    },
}  # fmt: skip
# Model ids and the names of models in quotas are spelt differently.
_MODEL_NAMES = {
    "amazon.titan-embed-text-v2": "titantextembeddingsv2",
    "amazon.titan-embed-image-v1": "titanmultimodalembeddingsg1",
    "amazon.nova-2-multimodal-embeddings": "novamultimodalembeddings",
}
_IN_GIGABYTES = ("file_bytes", "job_bytes")


def read_quotas(client: Any, model_id: str) -> Quotas:
    """The model's quotas; defaults, with a warning, for those that cannot be read."""
    model = _model_name(model_id)
    found: dict[str, int] = {}
    try:
        for quota in _all_quotas(client):
            field = _field_of(quota, model)
            if field is not None:
                found[field] = _value(field, quota)
    except Exception as error:  # no permission, no such service here: defaults do
        logger.info("quotas of %s cannot be listed: %s", model_id, error_message(error))
        found = _by_code(client, model) if error_code(error) else {}
    if missing := [field.name for field in fields(Quotas) if field.name not in found]:
        defaults = ", ".join(f"{name}={getattr(Quotas, name):,}" for name in missing)
        logger.info("quotas of %s not told by Service Quotas; taken as %s", model_id, defaults)
    return Quotas(**found)


def _all_quotas(client: Any) -> Iterator[dict[str, Any]]:
    for page in client.get_paginator("list_service_quotas").paginate(ServiceCode=SERVICE):
        yield from page.get("Quotas", ())


def _by_code(client: Any, model: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for field, code in _CODES.get(model, {}).items():
        try:
            answer = client.get_service_quota(ServiceCode=SERVICE, QuotaCode=code)
        except Exception as error:
            logger.debug("quota %s: %s", code, error)
            continue
        found[field] = _value(field, answer["Quota"])
    return found


def _field_of(quota: dict[str, Any], model: str) -> str | None:
    for field, code in _CODES.get(model, {}).items():
        if quota.get("QuotaCode") == code:
            return field
    # "… size (in GB) for X" and "… size for X (in GB)" are both met.
    name = re.sub(r"\(?(in )?gb\)?", "", str(quota.get("QuotaName", "")).lower())
    for field, pattern in _NAMES.items():
        match = re.match(rf"\W*{pattern}\W*(for|using)?\W*(?P<model>.*)", name)
        # The first version of a model is named with or without it: Nova Lite V1, Claude 3 Haiku.
        if match and _squeezed(match["model"]) in (model, f"{model}v1"):
            return field
    return None


def _value(field: str, quota: dict[str, Any]) -> int:
    value = float(quota["Value"])
    return round(value * 10**9) if field in _IN_GIGABYTES else int(value)


def _model_name(model_id: str) -> str:
    """`us.anthropic.claude-3-5-haiku-20241022-v1:0` as `claude35haiku`, the way that quotas name it.

    Later versions keep theirs: `anthropic.claude-3-5-sonnet-20241022-v2:0` as `claude35sonnetv2`.
    """
    name = model_id.rsplit("/", 1)[-1]
    for known, told in _MODEL_NAMES.items():
        if known in name:
            return told
    name = re.sub(r"^(us|eu|apac|global|jp|au|us-gov)\.", "", name)
    name = name.split(".", 1)[-1]
    name = re.sub(r"(:\w+)*$", "", name)
    return _squeezed(re.sub(r"(-\d{8})?(-v1)?$|-\d{8}(?=-v\d+$)", "", name))


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
