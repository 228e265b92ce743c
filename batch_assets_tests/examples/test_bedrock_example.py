"""examples/bedrock: a template that AWS would take, and a pipeline that its outputs are enough for."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from batch_assets.components.attributes import load_file
from batch_assets.errors import ConfigurationError
from batch_assets.settings.bedrock import BedrockExecutorSettings
from batch_assets_tests.examples.stacks import Stack, as_list, findings, made_stack, read_template
from batch_assets_tests.module_imports import REPOSITORY

FOLDER = REPOSITORY / "examples" / "bedrock"
TEMPLATE = (FOLDER / "template.yaml").read_text()
PROFILE = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.titan-embed-text-v2:0"
ENVIRONMENT = {
    "BEDROCK_ROLE_ARN": "RoleArn",
    "BEDROCK_STAGING": "StagingUri",
    "BEDROCK_QUEUE_URL": "QueueUrl",
}

# As AWS documents it: no ISO times, no place of files, no counts.
EVENT: dict[str, Any] = {
    "Source": "aws.bedrock",
    "DetailType": "Batch Inference Job State Change",
    "Resources": ["arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/abcdefghijkl"],
    "Detail": json.dumps(
        {
            "version": "0.0",
            "accountId": "123456789012",
            "batchJobName": "dummy-batch-job-name",
            "batchJobArn": "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/abcdefghijkl",
            "batchModelId": "arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-embed-text-v2:0",
            "status": "Completed",
            "failureMessage": "",
            "creationTime": "Aug 28, 2024, 10:47:53 PM",
        }
    ),
}
FOREIGN = [
    {**EVENT, "DetailType": "Model Customization Job State Change"},
    {**EVENT, "Source": "aws.batch", "DetailType": "Batch Job State Change"},
]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """With every option taken."""
    parameters = {"InferenceProfileArn": PROFILE, "NotificationEmail": "somebody@example.org"}
    with made_stack(read_template(FOLDER), parameters) as made:
        yield made


def test_cfn_lint_finds_nothing() -> None:
    assert findings(TEMPLATE) == []
    assert findings(TEMPLATE.replace("SqsManagedSseEnabled: true", "SqsManagedEncryption: true"))
    assert findings(TEMPLATE.replace("bedrock:StopModelInvocationJob", "bedrock:EndModelInvocationJob"))


@pytest.mark.parametrize(
    ("parameter", "legal", "illegal"),
    [
        (
            "ModelId",
            ["amazon.nova-2-multimodal-embeddings-v1:0", "anthropic.claude-3-5-haiku-20241022-v1:0"],
            ["us.anthropic.claude-3-5-haiku-20241022-v1:0", "global.amazon.nova-lite-v1:0", PROFILE, "*", ""],
        ),
        (
            "InferenceProfileArn",
            ["", PROFILE, PROFILE.replace("inference-profile/us.", "application-inference-profile/")],
            [
                "us.anthropic.claude-3-5-haiku-20241022-v1:0",
                "arn:aws:bedrock:us-east-1:123456789012:inference-profile/*",
            ],
        ),
        ("StagingPrefix", ["staging", "a/b-c_d.e"], ["", "/staging", "staging/", "a//b", "dt=2026", "*"]),
        ("NotificationEmail", ["", "somebody@example.org"], ["somebody"]),
    ],
)
def test_parameters_refuse_what_cannot_work(parameter: str, legal: list[str], illegal: list[str]) -> None:
    declared = read_template(FOLDER)["Parameters"][parameter]
    assert [value for value in legal if not re.search(declared["AllowedPattern"], value)] == []
    assert [value for value in illegal if re.search(declared["AllowedPattern"], value)] == []
    assert re.search(declared["AllowedPattern"], declared["Default"])
    assert declared["ConstraintDescription"]


def test_the_rule_brings_the_state_changes_of_batch_jobs_and_nothing_else_to_the_queue(stack: Stack) -> None:
    (body,) = stack.events_heard(EVENT, *FOREIGN)
    assert body["detail"] == json.loads(EVENT["Detail"])
    assert body["resources"] == EVENT["Resources"]


def test_a_job_may_use_the_staging_prefix_and_its_model_and_nothing_else(stack: Stack) -> None:
    bucket = stack.outputs["StagingUri"].removeprefix("s3://").split("/")[0]
    statements, trust = stack.role(stack.outputs["RoleArn"].rsplit("/", 1)[-1])
    allowed = {
        (action, resource)
        for item in statements.values()
        for action in as_list(item["Action"])
        for resource in as_list(item["Resource"])
    }
    assert allowed == {
        ("s3:GetObject", f"arn:aws:s3:::{bucket}/staging/*"),
        ("s3:PutObject", f"arn:aws:s3:::{bucket}/staging/*"),
        ("s3:ListBucket", f"arn:aws:s3:::{bucket}"),
        ("bedrock:InvokeModel", "arn:aws:bedrock:*::foundation-model/amazon.titan-embed-text-v2:0"),
        ("bedrock:InvokeModel", PROFILE),
    }
    assert trust["Principal"] == {"Service": "bedrock.amazonaws.com"}
    assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": "123456789012"}
    assert trust["Condition"]["ArnLike"] == {
        "aws:SourceArn": "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/*"
    }


def test_the_pipeline_may_pass_that_role_to_bedrock_only(stack: Stack) -> None:
    statements = stack.policy()
    passing = [item for item in statements.values() if "iam:PassRole" in as_list(item["Action"])]
    assert [(item["Resource"], item["Condition"]) for item in passing] == [
        (stack.outputs["RoleArn"], {"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}})
    ]
    assert PROFILE in statements["SubmitJobs"]["Resource"]
    assert statements["Notifications"]["Resource"] == stack.outputs["TopicArn"]
    everywhere = {
        action for item in statements.values() if item["Resource"] == "*" for action in item["Action"]
    }
    assert not any(re.search("Create|Stop|Invoke|Put|Delete|Pass", action) for action in everywhere)


def test_the_pipeline_takes_the_outputs_from_the_environment(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, output in ENVIRONMENT.items():
        monkeypatch.setenv(variable, stack.outputs[output])
    (settings,) = load_file(FOLDER / "defs.yaml")
    executor = settings.executor
    assert isinstance(executor, BedrockExecutorSettings)
    assert executor.role_arn == stack.outputs["RoleArn"]
    assert executor.staging == stack.outputs["StagingUri"]
    assert executor.queue_url == stack.outputs["QueueUrl"]
    assert executor.model_id == read_template(FOLDER)["Parameters"]["ModelId"]["Default"]


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ENVIRONMENT:
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigurationError, match="BEDROCK_ROLE_ARN is not set"):
        load_file(FOLDER / "defs.yaml")


def test_the_readme_names_every_output_and_parameter() -> None:
    text = (FOLDER / "README.md").read_text()
    content = read_template(FOLDER)
    assert [name for name in content["Parameters"] if f"`{name}`" not in text] == []
    assert [variable for variable in ENVIRONMENT if variable not in text] == []
    assert [name for name in content["Outputs"] if name not in text] == []
