"""What a refused CreateModelInvocationJob means is told by its code, whatever words are in it."""

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from batch_assets.errors import SubmissionRefused
from batch_assets.executors.bedrock.service import BedrockService
from batch_assets.executors.deferred import NameTaken
from batch_assets_tests.rehearsed import REGION, ROLE, TITAN

WORDS = "The model is already deprecated, and access to it exists no more."


@pytest.mark.parametrize(
    ("code", "expected"),
    [("ValidationException", SubmissionRefused), ("AccessDeniedException", SubmissionRefused),
     ("ConflictException", NameTaken)],
)  # fmt: skip
def test_a_refusal_that_says_already_is_what_its_code_says(code: str, expected: type[Exception]) -> None:
    def create(**_: Any) -> None:
        response: Any = {
            "Error": {"Code": code, "Message": WORDS},
            "ResponseMetadata": {"HTTPStatusCode": 400},
        }
        raise ClientError(response, "CreateModelInvocationJob")

    client = SimpleNamespace(create_model_invocation_job=create)
    options: Any = SimpleNamespace(role_arn=ROLE, model_id=TITAN, timeout_hours=24)
    service = BedrockService(client, client, options, REGION)
    with pytest.raises(expected, match=WORDS):
        service.create("name", "token", "s3://b/in/", "s3://b/out/", "InvokeModel")
