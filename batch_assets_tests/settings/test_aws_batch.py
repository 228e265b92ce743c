"""Containers that AWS Batch would refuse are refused before anything is uploaded."""

from typing import Any

import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.settings.pipeline import parse_pipeline

FARGATE = {"platform": "FARGATE", "gpus": 0, "execution_role_arn": "arn:aws:iam::123456789012:role/e"}


def parse(**executor: Any) -> None:
    values = {"type": "aws_batch", "job_queue": "queue", "image": "worker:1", **executor}
    parse_pipeline(
        {"source": {"uri": "s3://b/in/"}, "output": {"root": "s3://b/out"}, "executor": values},
        "texts",
        "a test",
    )


@pytest.mark.parametrize(
    "executor",
    [
        {},
        {**FARGATE, "memory_mb": 16384},
        {**FARGATE, "vcpus": 0.25, "memory_mb": 512},
        {**FARGATE, "vcpus": 16, "memory_mb": 122880},
        {"image": None, "job_definition": "any:3", "vcpus": 0.5},
        {"share_identifier": "teamA", "priority": 3},
    ],
)
def test_what_may_be(executor: dict[str, Any]) -> None:
    parse(**executor)


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        (FARGATE, "to 4 vcpus FARGATE gives 8192 to 30720 in certain steps, not 16000; the nearest is 16384"),
        ({**FARGATE, "vcpus": 3}, "FARGATE gives 0.25, 0.5, 1, 2, 4, 8, 16, not 3"),
        ({**FARGATE, "gpus": 1}, "FARGATE has no GPUs"),
        ({"platform": "FARGATE", "gpus": 0}, "FARGATE needs execution_role_arn"),
        ({"vcpus": 0.5}, "EC2 gives whole ones, not 0.5"),
        ({"share_identifier": "team_a/x"}, "share_identifier: 'team_a/x' cannot be used"),
        ({"environment": {"AWS_BATCH_JOB_ID": "x"}}, "AWS Batch sets AWS_BATCH_JOB_ID itself"),
        ({"priority": 3}, "priority counts within a share_identifier"),
    ],
)
def test_what_may_not_be(executor: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse(**executor)
