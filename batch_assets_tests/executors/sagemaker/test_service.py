"""Calls to SageMaker: all that the settings say is asked for, and every refusal leads somewhere."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from batch_assets.errors import SubmissionRefused
from batch_assets.executors.aws.errors import cannot_ask
from batch_assets.executors.sagemaker.failures import may_be_the_data
from batch_assets.executors.sagemaker.quotas import read_instances
from batch_assets.executors.sagemaker.service import job_request
from batch_assets.executors.sagemaker.service_errors import explain_refusal
from batch_assets.executors.service_jobs import SlotsFull, Unanswered
from batch_assets.settings.sagemaker import SageMakerExecutorSettings


def options(**fields: Any) -> SageMakerExecutorSettings:
    return SageMakerExecutorSettings.model_validate({"type": "sagemaker", "model_name": "my-model", **fields})


def test_all_that_is_set_is_asked_for() -> None:
    asked = options(
        instance_type="ml.m5.large", instance_count=2, strategy="SingleRecord", max_payload_mb=5, max_concurrent=8,
        invocation_timeout_seconds=60, invocation_retries=1, content_type="text/csv", environment={"A": "b"},
        kms_key="alias/key", tags={"team": "search"},
    )  # fmt: skip
    assert job_request(asked, "name", "s3://b/in/", "s3://b/out") == {
        "TransformJobName": "name",
        "ModelName": "my-model",
        "MaxConcurrentTransforms": 8,
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": 60, "InvocationsMaxRetries": 1},
        "MaxPayloadInMB": 5,
        "BatchStrategy": "SingleRecord",
        "Environment": {"A": "b"},
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in/"}},
            "ContentType": "text/csv",
            "CompressionType": "None",
            "SplitType": "Line",
        },
        "TransformOutput": {
            "S3OutputPath": "s3://b/out",
            "Accept": "text/csv",
            "AssembleWith": "Line",
            "KmsKeyId": "alias/key",
        },
        "TransformResources": {
            "InstanceType": "ml.m5.large",
            "InstanceCount": 2,
            "VolumeKmsKeyId": "alias/key",
        },
        "DataProcessing": {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$"},
        "Tags": [{"Key": "team", "Value": "search"}],
    }


def test_what_is_not_set_is_left_to_the_service() -> None:
    asked = job_request(options(), "name", "s3://b/in/", "s3://b/out")
    assert not {"MaxConcurrentTransforms", "ModelClientConfig", "Environment", "Tags"} & set(asked)


@pytest.mark.parametrize(
    ("instance_type", "has"),
    [("ml.m5.large", True), ("ml.p3.2xlarge", True), ("ml.inf2.xlarge", True), ("ml.c5.4xlarge", True),
     ("ml.g5.xlarge", False), ("ml.g4dn.xlarge", False), ("ml.m5d.large", False), ("ml.p4d.24xlarge", False)],
)  # fmt: skip
def test_local_disks_take_no_volume_key(instance_type: str, has: bool) -> None:
    asked = job_request(options(instance_type=instance_type, kms_key="k"), "n", "s3://b/i/", "s3://b/o")
    assert ("VolumeKmsKeyId" in asked["TransformResources"]) is has
    assert asked["TransformOutput"]["KmsKeyId"] == "k"


def quota_error(limit: int) -> tuple[str, int, str]:
    message = (
        f"The account-level service limit 'ml.g5.xlarge for transform job usage' is {limit} Instances, with current "
        "utilization of 0 Instances and a request delta of 2 Instances."
    )
    return "ResourceLimitExceeded", 400, message


REFUSALS: list[tuple[tuple[str, int, str], type[Exception], str]] = [
    (quota_error(4), SlotsFull, "is 4 Instances"),
    (quota_error(0), SubmissionRefused, "'ml.g5.xlarge for transform job usage' in us-east-1 is 0, and a job takes 2"),
    (quota_error(1), SubmissionRefused, "request an increase"),
    (("ThrottlingException", 400, "Rate exceeded"), SlotsFull, "Rate exceeded"),
    (("InternalFailure", 500, "unknown"), Unanswered, "unknown"),
    (("", 503, ""), Unanswered, ""),
    (("ValidationException", 400, 'Could not find model "arn:x".'), SubmissionRefused, "executor.model_name"),
    (("AccessDeniedException", 400, "not authorized to perform sagemaker:AddTags"), SubmissionRefused,
     "sagemaker:AddTags"),
    (("ValidationException", 400, "Invalid S3 location"), SubmissionRefused, "executor.staging"),
    (("ExpiredTokenException", 400, "expired"), SubmissionRefused, "renew the AWS credentials"),
    (("ValidationException", 400, "whatever"), SubmissionRefused, "whatever; correct it"),
]  # fmt: skip


@pytest.mark.parametrize(("told", "kind", "said"), REFUSALS)
def test_what_a_refusal_means(
    told: tuple[str, int, str], kind: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "in the environment, where nobody renews it")
    code, status, message = told
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = explain_refusal(
        ClientError(answer, "CreateTransformJob"),  # type: ignore[arg-type]
        options(instance_count=2, tags={"a": "b"}),
        "us-east-1",
    )
    assert type(error) is kind
    assert said in str(error)


def test_expired_credentials_that_may_be_renewed_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    answer = {"Error": {"Code": "ExpiredTokenException", "Message": "too old"}}
    error = ClientError(answer, "CreateTransformJob")  # type: ignore[arg-type]
    refused = explain_refusal(error, options(), "us-east-1")
    assert isinstance(refused, SlotsFull) and "too old; renew the AWS credentials" in str(refused)
    assert isinstance(cannot_ask(error, "SageMaker", "x"), Unanswered)


@pytest.mark.parametrize(
    ("reason", "began", "expected"),
    [
        ("ClientError: See job logs for more information", False, True),
        ("AlgorithmError: See job logs for more information", False, True),
        ("ClientError: Too much data for max payload size", True, True),
        ("", True, True),
        ("", False, False),
        ("CapacityError: Unable to provision requested ML compute capacity.", True, False),
        ("InternalServerError: We encountered an internal error. Please try again.", True, False),
        ("AlgorithmError: The model did not pass the ping health check", False, False),
        ("ClientError: No S3 objects found under S3 URL", False, False),
        ("ClientError: object s3://my-bucket/image/pull/x.jsonl: container answered 400", False, True),
        (
            'ModelError: Received server error (500) from model with message "Internal Server Error"',
            False,
            True,
        ),
        ("Received server error (0) from primary and could not load the entire response body", False, True),
        ("ClientError: Could not assume role arn:aws:iam::123456789012:role/model", True, False),
        ("ClientError: Access denied for bucket my-bucket", True, False),
        ("ClientError: The bucket does not exist", True, False),
        ("ClientError: record 7 has no field 'role' or 'bucket'", False, True),
        (
            "InternalServerError: image arn:aws:ecr:us-east-1:123456789012:repository/x could not be pulled",
            True,
            False,
        ),
    ],
)
def test_whose_fault_a_failed_job_is(reason: str, began: bool, expected: bool) -> None:
    assert may_be_the_data(reason, began=began) is expected


class FakeQuotas:
    """Service Quotas with two pages, or without permission."""

    def __init__(self, pages: list[list[dict[str, Any]]] | None) -> None:
        self._pages = pages

    def get_paginator(self, name: str) -> "FakeQuotas":
        return self

    def paginate(self, **call: Any) -> list[dict[str, Any]]:
        if self._pages is None:
            raise PermissionError("no")
        return [{"Quotas": page} for page in self._pages]


def test_the_quota_of_the_instance_type_is_read() -> None:
    quotas = [
        {"QuotaName": f"ml.g5.xlarge for {use} job usage", "Value": 7.0} for use in ("training", "transform")
    ]
    assert read_instances(FakeQuotas([[quotas[0]], [quotas[1]]]), "ml.g5.xlarge") == 7
    assert read_instances(FakeQuotas([[quotas[0]]]), "ml.g5.xlarge") is None
    assert read_instances(FakeQuotas(None), "ml.g5.xlarge") is None
