"""Quotas: found under whatever name Service Quotas gives a model."""

from typing import Any

import pytest

from batch_assets.executors.bedrock.quotas import Quotas, read_quotas


class ServiceQuotas:
    """Knows one quota, by this name."""

    def __init__(self, name: str, value: float) -> None:
        self.quota = {"QuotaName": name, "QuotaCode": "L-00000000", "Value": value}

    def get_paginator(self, operation: str) -> Any:
        return self

    def paginate(self, **call: Any) -> list[dict[str, Any]]:
        return [{"Quotas": [self.quota]}]


@pytest.mark.parametrize(
    ("model_id", "name"),
    [
        ("amazon.titan-embed-text-v2:0", "Titan Text Embeddings V2"),
        ("amazon.nova-2-multimodal-embeddings-v1:0", "Nova Multimodal Embeddings"),
        ("amazon.nova-2-multimodal-embeddings-v1:0", "Nova Multimodal Embeddings V1"),
        ("us.amazon.nova-lite-v1:0", "Nova Lite V1"),
        ("us.amazon.nova-pro-v1:0:300k", "Nova Pro V1"),
        ("anthropic.claude-3-haiku-20240307-v1:0", "Claude 3 Haiku"),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", "Claude 3.5 Sonnet v2"),
        ("arn:aws:bedrock:eu-west-1:1:inference-profile/eu.amazon.nova-lite-v1:0", "Nova Lite V1"),
    ],
)  # fmt: skip
def test_a_model_finds_its_quota(model_id: str, name: str) -> None:
    told = ServiceQuotas(f"Minimum number of records per batch inference job for {name}", 7)
    assert read_quotas(told, model_id).min_records == 7


def test_the_quota_of_another_version_is_not_taken() -> None:
    told = ServiceQuotas("Records per batch inference job for Claude 3.5 Sonnet", 7)
    found = read_quotas(told, "anthropic.claude-3-5-sonnet-20241022-v2:0")
    assert found.records_per_job == Quotas().records_per_job


def test_sizes_are_told_in_gigabytes() -> None:
    for name in ("size (in GB) for Nova Lite V1", "size for Nova Lite V1 (in GB)"):
        told = ServiceQuotas(f"Batch inference input file {name}", 0.5)
        assert read_quotas(told, "us.amazon.nova-lite-v1:0").file_bytes == 500_000_000
