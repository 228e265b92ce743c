"""Which failed calls of Bedrock say something of the model, and are no record's fault."""

import pytest
from botocore.exceptions import ClientError

from batch_assets.executors.aws import errors
from batch_assets.executors.bedrock.serving import explain_call
from batch_assets.executors.service_jobs import Unanswered

MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"


def failed(code: str, message: str, status: int = 400) -> ClientError:
    response = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "InvokeModel")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "message", "remedy"),
    [
        ("ValidationException", "with on-demand throughput isn’t supported.", "inference profile"),
        ("ValidationException", "The provided model identifier is invalid.", "inference profile"),
        ("ValidationException", "Operation not allowed", "add records"),
        ("ResourceNotFoundException", "This model version has reached the end of its life.", "add records"),
        ("AccessDeniedException", "You don't have access to the model", "allow bedrock:InvokeModel"),
        ("ExpiredTokenException", "The security token included in the request is expired", "renew"),
        ("InvalidSignatureException", "Signature expired: 20261202T000000Z is now earlier than …", "clock"),
        ("AccessDeniedException", "… not authorized to perform: kms:Decrypt on this resource", "KMS key"),
    ],
)  # fmt: skip
def test_what_is_said_of_the_model_comes_first_then_the_remedy(
    monkeypatch: pytest.MonkeyPatch, code: str, message: str, remedy: str
) -> None:
    monkeypatch.setattr(errors, "are_renewable", lambda: False)
    told = str(explain_call(failed(code, message), MODEL))
    assert told.index(message) < told.index(remedy)
    assert "no attempt is spent" in told


@pytest.mark.parametrize(
    ("code", "message", "status"),
    [
        ("ValidationException", "Malformed input request: expected maxLength: 50000, actual: 50001", 400),
        ("ServiceQuotaExceededException", "Too many tokens per day", 400),
        ("ThrottlingException", "Too many requests", 429),
        ("ModelErrorException", "The model failed", 424),
    ],
)
def test_what_is_said_of_a_record_or_passes_is_no_refusal(code: str, message: str, status: int) -> None:
    assert explain_call(failed(code, message, status), MODEL) is None


def test_credentials_that_somebody_may_renew_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "are_renewable", lambda: True)
    waited = explain_call(failed("ExpiredTokenException", "The security token is expired", 403), MODEL)
    assert isinstance(waited, Unanswered)
    assert str(waited).startswith("ExpiredTokenException: The security token is expired; renew")
