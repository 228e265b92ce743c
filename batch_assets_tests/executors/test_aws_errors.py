"""What an AWS service says against a call comes before what to do about it, whichever service it is."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from batch_assets.errors import ConfigurationError, SubmissionRefused
from batch_assets.executors.aws.buckets import check_bucket
from batch_assets.executors.aws.errors import cannot_ask, unreachable
from batch_assets.executors.bedrock import service_errors as bedrock
from batch_assets.executors.sagemaker import service_errors as sagemaker
from batch_assets.executors.service_jobs import SlotsFull, Unanswered
from batch_assets.settings.sagemaker import SageMakerExecutorSettings

SAGEMAKER = SageMakerExecutorSettings(
    type="sagemaker", model_name="m", instance_type="ml.g5.xlarge", staging="s3://bucket/x/"
)
ASKED: dict[str, Callable[[Exception], Exception]] = {
    "ask": lambda error: cannot_ask(error, "Bedrock", "bedrock:ListModelInvocationJobs"),
    "bedrock": lambda error: bedrock.explain_refusal(error, "model", "role", "us-east-1"),
    "sagemaker": lambda error: sagemaker.explain_refusal(error, SAGEMAKER, "us-east-1"),
}


def refusal(code: str, status: int, message: str = "", headers: dict[str, str] | None = None) -> ClientError:
    meta = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": meta}, "Call")  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(
    ("code", "message", "step"),
    [
        (
            "InvalidSignatureException",
            "Signature expired: 20260101T000000Z is now earlier",
            "this machine's clock",
        ),
        ("RequestTimeTooSkewed", "The difference is too large", "this machine's clock"),
        ("ExpiredTokenException", "The token has expired", "renew the AWS credentials"),
        ("AccessDeniedException", "not authorized to perform: kms:Decrypt on k", "the KMS key"),
    ],
)
def test_the_step_fits_what_was_said(
    asked: str, code: str, message: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody renews this one")
    error = ASKED[asked](refusal(code, 400, message))
    assert isinstance(error, SubmissionRefused)
    said, _, advice = str(error).partition(f"{code}: {message}; ")
    assert said
    assert step in advice
    assert "bedrock:" not in advice


@pytest.mark.parametrize("asked", ASKED)
def test_what_may_pass_keeps_its_code(asked: str) -> None:
    error = ASKED[asked](refusal("ServiceUnavailableException", 503, "Come back"))
    assert isinstance(error, Unanswered)
    assert "ServiceUnavailableException: Come back" in str(error)
    slow = ASKED[asked](refusal("ThrottlingException", 400, "Too fast"))
    assert isinstance(slow, SlotsFull | Unanswered)
    assert "ThrottlingException: Too fast" in str(slow)


def test_what_was_never_sent_is_not_the_networks_fault() -> None:
    error = ParamValidationError(report="Invalid bucket name 'a b'")
    assert isinstance(unreachable(error), ConfigurationError)
    assert "network" not in str(unreachable(error))
    for explain in ASKED.values():
        told = explain(error)
        assert isinstance(told, ConfigurationError | SubmissionRefused)
        assert "Invalid bucket name" in str(told)


class Bucket:
    """Refuses to be looked at: a HEAD with its status alone, a GET with the reason."""

    def __init__(self, reason: ClientError) -> None:
        self.reason = reason

    def head_bucket(self, Bucket: str) -> Any:  # noqa: N803
        status: int = self.reason.response["ResponseMetadata"]["HTTPStatusCode"]
        raise refusal(str(status), status, "Bad Request")

    def list_objects_v2(self, Bucket: str, MaxKeys: int) -> Any:  # noqa: N803
        raise self.reason


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (
            refusal("ExpiredToken", 400, "It has expired"),
            r"bucket b: ExpiredToken: It has expired; renew the AWS",
        ),
        (refusal("InvalidArgument", 400, "Odd"), r"bucket b: InvalidArgument: Odd; correct it"),
        (
            refusal("NoSuchBucket", 404, "None such"),
            r"NoSuchBucket: None such; there is no bucket b; create it",
        ),
        (
            refusal("PermanentRedirect", 301, "Elsewhere", {"x-amz-bucket-region": "eu-west-1"}),
            r"bucket b is in eu-west-1 \(PermanentRedirect: Elsewhere\), jobs run in us-east-1",
        ),
        (refusal("AuthorizationHeaderMalformed", 400, "no"), r"bucket b is in another region \(Auth.*: no\)"),
    ],
)
def test_a_bucket_that_cannot_be_looked_at(reason: ClientError, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check_bucket(Bucket(reason), "s3://b/staging/", "us-east-1", "Bedrock")


def test_a_bucket_that_may_not_be_looked_at_may_be_written_to() -> None:
    check_bucket(Bucket(refusal("AccessDenied", 403, "no")), "s3://b/staging/", "us-east-1", "Bedrock")
