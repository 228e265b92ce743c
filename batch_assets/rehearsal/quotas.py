"""Service Quotas: the names, codes and values of the quotas of Bedrock's batches and SageMaker's instances.

Names and codes are AWS's own where they are known (codes differ by model, names are not
spelled alike for all), and of the same form where not. The values are the scenario's.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from batch_assets.rehearsal.account import ACCOUNT
from batch_assets.rehearsal.faults import Quotas, Scenario
from batch_assets.rehearsal.models import MODEL_NAMES
from batch_assets.rehearsal.sagemaker.faults import Transform
from batch_assets.rehearsal.wire import (
    Call,
    Reply,
    ServiceError,
    read_request,
    service_model,
    success,
    target,
)

OPERATIONS = (
    "GetServiceQuota", "ListServiceQuotas", "GetAWSDefaultServiceQuota", "ListAWSDefaultServiceQuotas",
)  # fmt: skip

SUM = "Sum of in-progress and submitted batch inference jobs using a"
KNOWN_CODES = {
    "Minimum number of records per batch inference job for Titan Text Embeddings V2": "L-6F2B2616",
    "Records per input file per batch inference job for Titan Text Embeddings V2": "L-D1151D45",
    "Records per batch inference job for Titan Text Embeddings V2": "L-AAC5F6D6",
    "Batch inference input file size for Titan Text Embeddings V2 (in GB)": "L-3CAACDCF",
    f"{SUM} base model for Titan Text Embeddings V2": "L-1AC1CABC",
    f"{SUM} custom model for Titan Text Embeddings V2": "L-329D7443",
    "On-demand model inference requests per minute for Amazon Titan Text Embeddings V2": "L-26C560CE",
    "Minimum number of records per batch inference job for Titan Multimodal Embeddings G1": "L-1A69C08F",
    "Records per input file per batch inference job for Titan Multimodal Embeddings G1": "L-81E26054",
    "Records per batch inference job for Titan Multimodal Embeddings G1": "L-3BD2251E",
    "Batch inference input file size (in GB) for Titan Multimodal Embeddings G1": "L-447BB329",
    "Batch inference job size (in GB) for Titan Multimodal Embeddings G1": "L-4C584163",
    f"{SUM} base model for Titan Multimodal Embeddings G1": "L-7F2C6F33",
    f"{SUM} custom model for Titan Multimodal Embeddings G1": "L-652C224A",
    "ml.m5.large for transform job usage": "L-236AE59F",
    "Records per batch inference job for Claude 3 Haiku": "L-1F644C2A",
    "Batch inference input file size (in GB) for Claude 3 Haiku": "L-42ABE687",
    f"{SUM} base model for Claude 3 Haiku": "L-1570CF9E",
}  # fmt: skip


def bedrock_quotas(values: Quotas, region: str) -> Iterator[dict[str, Any]]:
    """Every quota of every model, as Service Quotas lists them."""
    for name in MODEL_NAMES.values():
        # One model's names say the unit behind, the others' in the middle.
        behind = name == "Titan Text Embeddings V2"
        file_size = f"size for {name} (in GB)" if behind else f"size (in GB) for {name}"
        rows: list[tuple[str, float, bool]] = [
            (f"Minimum number of records per batch inference job for {name}", values.min_records, False),
            (f"Records per input file per batch inference job for {name}", values.max_file_records, True),
            (f"Records per batch inference job for {name}", values.max_records, True),
            (f"Batch inference input file {file_size}", values.max_file_bytes / 10**9, False),
            (f"{SUM} base model for {name}", values.concurrent_jobs, True),
            (f"{SUM} custom model for {name}", 3, True),
            (
                f"On-demand model inference requests per minute for {_with_maker(name)}",
                values.on_demand_rpm,
                False,
            ),
        ]
        if not behind:
            rows.append((f"Batch inference job size (in GB) for {name}", values.max_job_bytes / 10**9, False))
        for quota_name, value, adjustable in rows:
            yield _quota("bedrock", "Amazon Bedrock", region, quota_name, value, adjustable)


def sagemaker_quotas(values: Transform, region: str) -> Iterator[dict[str, Any]]:
    """How many instances of each type transform jobs may have, as Service Quotas lists it."""
    for kind in service_model("sagemaker").shape_for("TransformInstanceType").enum:
        name = f"{kind} for transform job usage"
        yield _quota("sagemaker", "Amazon SageMaker", region, name, values.quota(kind), True)


def _quota(
    service: str, service_name: str, region: str, name: str, value: float, adjustable: bool
) -> dict[str, Any]:
    code = KNOWN_CODES.get(name) or _made_up_code(name)
    return {
        "ServiceCode": service,
        "ServiceName": service_name,
        "QuotaArn": f"arn:aws:servicequotas:{region}:{ACCOUNT}:{service}/{code}",
        "QuotaCode": code,
        "QuotaName": name,
        "Value": float(value),
        "Unit": "None",
        "Adjustable": adjustable,
        "GlobalQuota": False,
        "QuotaAppliedAtLevel": "ACCOUNT",
    }


def _with_maker(name: str) -> str:
    return f"Anthropic {name}" if name.startswith("Claude") else f"Amazon {name}"


def _made_up_code(name: str) -> str:
    return f"L-{hashlib.sha256(name.encode()).hexdigest()[:8].upper()}"


def answer(call: Call, scenario: Scenario) -> Reply:
    """The reply to a call of Service Quotas; raises ServiceError."""
    operation = target("service-quotas", call)
    if operation is None or operation.name not in OPERATIONS:
        asked = call.headers.get("x-amz-target", "such operation")
        raise ServiceError("UnknownOperationException", f"the rehearsal has no {asked}")
    try:
        given = read_request(operation, call, {})
    except ServiceError as error:
        raise ServiceError("IllegalArgumentException", error.message) from error
    found: list[dict[str, Any]] = []
    if given["ServiceCode"] == "bedrock":
        found = list(bedrock_quotas(scenario.quotas, call.region))
    elif given["ServiceCode"] == "sagemaker":
        found = list(sagemaker_quotas(scenario.transform, call.region))
    if not found:
        raise ServiceError(
            "NoSuchResourceException",
            f"The request failed because service {given['ServiceCode']} does not exist.",
        )
    if "QuotaCode" in given:
        found = [quota for quota in found if quota["QuotaCode"] == given["QuotaCode"]]
    if operation.name.startswith("Get"):
        if not found:
            raise ServiceError(
                "NoSuchResourceException",
                f"The request failed because quota {given['QuotaCode']} does not exist.",
            )
        return success(operation, {"Quota": found[0]})
    return success(operation, _page(found, given))


def _page(found: list[dict[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    start = 0
    if token := given.get("NextToken"):
        try:
            start = int(base64.b64decode(token, validate=True))
        except ValueError as error:
            raise ServiceError("InvalidPaginationTokenException", "Invalid pagination token") from error
    end = start + given.get("MaxResults", 100)
    more = base64.b64encode(str(end).encode()).decode() if end < len(found) else None
    return {"Quotas": found[start:end], "NextToken": more}
