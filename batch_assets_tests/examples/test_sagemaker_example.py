"""examples/sagemaker: a template that AWS would take, the policies in it, and code that a container would run."""

import importlib.util
import json
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from batch_assets.components.attributes import load_file
from batch_assets.embeddings.schema import EMBED
from batch_assets.executors.sagemaker.answers import AnswerFormat
from batch_assets.executors.sagemaker.requests import INPUT, Lines
from batch_assets.settings.sagemaker import SageMakerExecutorSettings
from batch_assets_tests.examples.stacks import (
    Stack,
    actions_by_sid,
    findings,
    made_stack,
    read_policy,
    read_template,
    unknown_operations,
)
from batch_assets_tests.module_imports import REPOSITORY

FOLDER = REPOSITORY / "examples" / "sagemaker"
TEMPLATE = (FOLDER / "template.yaml").read_text()
IN_ECR = "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-inference"
IMAGE = f"{IN_ECR}:2.6.0-gpu-py312"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
PARAMETERS = {
    "ImageUri": IMAGE,
    "ModelDataUri": "s3://my-models/minilm/model.tar.gz",
    "KmsKeyArn": KEY,
}
OF_THE_KEY = {"Key", "KeyOfVolumes"}
ENVIRONMENT = {
    "SAGEMAKER_MODEL": "ModelName",
    "SAGEMAKER_STAGING": "StagingUri",
    "SAGEMAKER_ROOT": "RootUri",
    "SAGEMAKER_QUEUE_URL": "QueueUrl",
}


def event(status: str, detail_type: str = "SageMaker Transform Job State Change") -> dict[str, Any]:
    detail = {"TransformJobName": "texts-0a1b2c-g0001-00000-1-abcdef", "TransformJobStatus": status}
    return {"Source": "aws.sagemaker", "DetailType": detail_type, "Detail": json.dumps(detail)}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with made_stack(read_template(FOLDER), PARAMETERS) as made:
        yield made


def test_cfn_lint_finds_nothing() -> None:
    assert findings(TEMPLATE) == []
    assert findings(TEMPLATE.replace("sagemaker:StopTransformJob", "sagemaker:EndTransformJob"))


@pytest.mark.parametrize(
    ("parameter", "legal", "illegal"),
    [
        ("ImageUri", [IMAGE, f"{IN_ECR}@sha256:{64 * 'a'}"], ["", "pytorch:2", IN_ECR]),
        (
            "ModelDataUri",
            ["s3://my-models/model.tar.gz", "s3://my-models/a/b_c/model.tar.gz"],
            ["", "model.tar.gz", "s3://my-models/", "s3://my-models/*.tar.gz"],
        ),
        ("KmsKeyArn", ["", KEY], ["alias/key", KEY.replace("1234abcd", "*")]),
    ],
)  # fmt: skip
def test_parameters_refuse_what_cannot_work(parameter: str, legal: list[str], illegal: list[str]) -> None:
    declared = read_template(FOLDER)["Parameters"][parameter]
    assert [value for value in legal if not re.search(declared["AllowedPattern"], value)] == []
    assert [value for value in illegal if re.search(declared["AllowedPattern"], value)] == []
    assert declared["ConstraintDescription"]


def test_the_rule_brings_ends_of_transform_jobs_and_nothing_else_to_the_queue(stack: Stack) -> None:
    others = [
        event("InProgress"),
        event("Stopping"),
        event("Completed", "SageMaker Training Job State Change"),
    ]
    found = stack.events_heard(*others, event("Completed"), event("Failed"), event("Stopped"))
    assert sorted(each["detail"]["TransformJobStatus"] for each in found) == [
        "Completed",
        "Failed",
        "Stopped",
    ]


def test_a_job_may_use_staging_and_its_model_and_the_pipeline_passes_no_role(stack: Stack) -> None:
    model = stack.client("sagemaker").describe_model(ModelName=stack.outputs["ModelName"])
    statements, trust = stack.role(model["ExecutionRoleArn"].rsplit("/", 1)[-1])
    assert trust["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    staging = stack.outputs["StagingUri"].replace("s3://", "arn:aws:s3:::")
    assert statements["StagedFiles"]["Resource"] == f"{staging}*"
    assert statements["ModelFiles"]["Resource"] == "arn:aws:s3:::my-models/minilm/model.tar.gz"
    policy = stack.policy()
    assert policy["LookAtTheModel"]["Resource"] == model["ModelArn"]
    assert not [each for each in policy.values() if "iam:PassRole" in each["Action"]]
    everywhere = {sid for sid, each in (statements | policy).items() if each["Resource"] == "*"}
    assert everywhere == {"RegistryAndMetrics", "CountJobsAndReadQuotas"}


def test_the_policies_files_say_what_the_template_says(stack: Stack) -> None:
    for file, made in (
        ("pipeline-policy.json", stack.policy()),
        ("role-policy.json", stack.role(_role(stack))[0]),
    ):
        written = read_policy(FOLDER / file)
        assert unknown_operations(written, ["sagemaker", "servicequotas"]) == []
        same = {sid: item for sid, item in made.items() if sid not in OF_THE_KEY}
        assert actions_by_sid(written) == actions_by_sid(same)
        assert {sid: each.get("Condition") for sid, each in written.items()} == {
            sid: each.get("Condition") for sid, each in same.items()
        }


def _role(stack: Stack) -> str:
    model = stack.client("sagemaker").describe_model(ModelName=stack.outputs["ModelName"])
    return model["ExecutionRoleArn"].rsplit("/", 1)[-1]


def test_the_pipeline_takes_the_outputs_from_the_environment(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, output in ENVIRONMENT.items():
        monkeypatch.setenv(variable, stack.outputs[output])
    (settings,) = load_file(FOLDER / "defs.yaml")
    executor = settings.executor
    assert isinstance(executor, SageMakerExecutorSettings)
    assert executor.model_name == stack.outputs["ModelName"]
    assert executor.staging == stack.outputs["StagingUri"]
    assert executor.queue_url == stack.outputs["QueueUrl"]
    assert settings.output.root.startswith(stack.outputs["RootUri"])


def test_the_readme_names_every_output_and_parameter() -> None:
    text, content = (FOLDER / "README.md").read_text(), read_template(FOLDER)
    assert [
        name for name in (*content["Parameters"], *content["Outputs"], *ENVIRONMENT) if name not in text
    ] == []


class Model:
    """Stands for a SentenceTransformer: a vector of each text's length."""

    def encode(self, texts: list[str], **_: Any) -> Any:
        return np.array([[len(text), 0.5] for text in texts], dtype=np.float32)


def _inference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("inference", FOLDER / "inference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_containers_code_understands_the_executors_lines_and_is_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ENVIRONMENT:
        monkeypatch.setenv(variable, "s3://bucket/x/" if variable.endswith(("STAGING", "ROOT")) else "x")
    (settings,) = load_file(FOLDER / "defs.yaml")
    options = settings.executor
    assert isinstance(options, SageMakerExecutorSettings)
    lines = Lines.of(settings.model, options)
    texts = ["one", "two lines\nof text", "a line separator\u2028within"]
    # What the service's filter leaves of a line for the container.
    sent = [json.dumps(json.loads(lines.line(number, text))[INPUT]) for number, text in enumerate(texts)]
    inference = _inference()
    found = inference.input_fn("\n".join(sent).encode() + b"\n", options.content_type)
    assert found == texts
    answers = inference.output_fn(inference.predict_fn(found, Model()), options.content_type).split("\n")
    expected = AnswerFormat(task=EMBED, output_field=options.output_field)
    vectors = [expected.read(json.loads(answer)).vector for answer in answers]
    assert [list(vector) for vector in vectors if vector is not None] == [[len(text), 0.5] for text in texts]
    with pytest.raises(ValueError, match="text/csv"):
        inference.input_fn(b"", "text/csv")
