"""What a refused CreateModelInvocationJob means is told by its code; that a name is taken, by its words too."""

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from batch_assets.errors import SubmissionRefused
from batch_assets.executors.bedrock.service import BedrockService
from batch_assets.executors.service_jobs import NameTaken
from batch_assets_tests.rehearsed import REGION, ROLE, TITAN

WORDS = "The model is already deprecated, and access to it exists no more."


@pytest.mark.parametrize(
    ("code", "expected"),
    [("ValidationException", SubmissionRefused), ("AccessDeniedException", SubmissionRefused),
     ("ConflictException", NameTaken)],
)  # fmt: skip
def test_a_refusal_that_says_already_is_what_its_code_says(code: str, expected: type[Exception]) -> None:
    with pytest.raises(expected, match=WORDS):
        create(code, WORDS)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("The batch job name texts-1-0 is already in use.", NameTaken),
        ("A model invocation job with the name texts-1-0 already exists", NameTaken),
        ("jobName texts-1-0 already exists in this account", NameTaken),
        ("A job named texts-1-0 already exists", NameTaken),
        (
            "Value 'a_b' at 'jobName' failed to satisfy constraint: Member must satisfy a pattern",
            SubmissionRefused,
        ),
        ("The role name batch is already in use", SubmissionRefused),
        ("The output folder of the job already exists", SubmissionRefused),
    ],
)
def test_a_name_that_is_taken_may_be_said_as_a_malformed_call(
    message: str, expected: type[Exception]
) -> None:
    with pytest.raises(expected, match=message):
        create("ValidationException", message)


def create(code: str, message: str) -> None:
    """A call that fails so."""

    def fail(**_: Any) -> None:
        response: Any = {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": 400},
        }
        raise ClientError(response, "CreateModelInvocationJob")

    client = SimpleNamespace(create_model_invocation_job=fail)
    options: Any = SimpleNamespace(role_arn=ROLE, model_id=TITAN, timeout_hours=24)
    service = BedrockService(client, client, options, REGION)
    service.create("name", "token", "s3://b/in/", "s3://b/out/", "InvokeModel")
