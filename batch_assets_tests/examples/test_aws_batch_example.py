"""examples/aws_batch: a template that AWS would take, the policies in it, and the worker's image."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from batch_assets.components.attributes import load_file
from batch_assets.executors.aws_batch.requests import worker_command
from batch_assets.settings.aws_batch import AwsBatchExecutorSettings
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets_tests.examples.stacks import (
    Stack,
    actions_by_sid,
    as_list,
    findings,
    made_stack,
    read_policy,
    read_template,
    unknown_operations,
)
from batch_assets_tests.module_imports import REPOSITORY

FOLDER = REPOSITORY / "examples" / "aws_batch"
TEMPLATE = (FOLDER / "template.yaml").read_text()
PARAMETERS = {
    "WorkerImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/worker:1",
    "SubnetIds": "subnet-1",
    "SecurityGroupIds": "sg-1",
    "SourceBucket": "my-source-bucket",
}
# moto's CloudFormation makes no queue from these properties; an ARN is all that the rest wants of it.
STAND_INS = {"JobQueue": {"Type": "AWS::SNS::Topic"}}
ENVIRONMENT = {
    "BATCH_JOB_QUEUE": "JobQueue",
    "BATCH_JOB_DEFINITION": "JobDefinition",
    "BATCH_ROOT": "RootUri",
    "BATCH_QUEUE_URL": "QueueUrl",
}


def event(queue: str, status: str, job: str = "job-1") -> dict[str, Any]:
    detail = {"jobId": job, "jobName": "texts", "jobQueue": queue, "status": status}
    return {"Source": "aws.batch", "DetailType": "Batch Job State Change", "Detail": json.dumps(detail)}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with made_stack(read_template(FOLDER), PARAMETERS, STAND_INS) as made:
        yield made


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> PipelineSettings:
    for variable in ENVIRONMENT:
        monkeypatch.setenv(variable, "s3://bucket/x/")
    (settings,) = load_file(FOLDER / "defs.yaml")
    return settings


def test_cfn_lint_finds_nothing() -> None:
    assert findings(TEMPLATE) == []
    assert findings(TEMPLATE.replace("batch:TerminateJob", "batch:EndJob"))


def test_machines_are_of_spot_first_and_the_definition_runs_the_worker(pipeline: PipelineSettings) -> None:
    resources = {name: each["Properties"] for name, each in read_template(FOLDER)["Resources"].items()}
    first, second = resources["JobQueue"]["ComputeEnvironmentOrder"]
    assert first["ComputeEnvironment"] == {"Ref": "SpotMachines"}
    assert second["Fn::If"][1]["ComputeEnvironment"] == {"Ref": "OnDemandMachines"}
    spot, on_demand = (resources[name]["ComputeResources"] for name in ("SpotMachines", "OnDemandMachines"))
    assert (spot["Type"], spot["AllocationStrategy"]) == ("SPOT", "SPOT_PRICE_CAPACITY_OPTIMIZED")
    assert on_demand["Type"] == "EC2"
    assert spot["MinvCpus"] == on_demand["MinvCpus"] == 0
    container = resources["WorkerDefinition"]["ContainerProperties"]
    assert container["Command"] == worker_command("Ref::manifest")
    assert container["Environment"] == [{"Name": "AWS_REGION", "Value": {"Ref": "AWS::Region"}}]
    asked = {each["Type"]: each["Value"] for each in container["ResourceRequirements"]}
    executor = pipeline.executor
    assert isinstance(executor, AwsBatchExecutorSettings)
    assert asked == {"VCPU": f"{executor.vcpus:g}", "MEMORY": str(executor.memory_mb)}


def test_the_rule_brings_ends_in_its_own_job_queue_and_nothing_else(stack: Stack) -> None:
    own, other = stack.outputs["JobQueue"], "arn:aws:batch:us-east-1:123456789012:job-queue/other"
    found = stack.events_heard(
        event(own, "RUNNABLE"),
        event(other, "FAILED"),
        event(own, "SUCCEEDED", "job-1:7"),
        event(own, "FAILED"),
    )
    ends = sorted((each["detail"]["jobId"], each["detail"]["status"]) for each in found)
    assert ends == [("job-1", "FAILED"), ("job-1:7", "SUCCEEDED")]


def test_a_worker_may_reach_its_files_alone_and_only_its_role_is_passed(stack: Stack) -> None:
    policy = stack.policy()
    role = policy["GiveWorkersTheirRole"]["Resource"]
    assert policy["GiveWorkersTheirRole"]["Condition"] == {
        "StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
    }
    assert role == stack.outputs["JobRoleArn"]
    statements, trust = stack.role(role.rsplit("/", 1)[-1])
    assert trust["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert {action.split(":")[0] for each in statements.values() for action in as_list(each["Action"])} == {
        "s3"
    }
    root = stack.outputs["RootUri"].replace("s3://", "arn:aws:s3:::")
    assert statements["OutputRoots"]["Resource"] == f"{root}*"
    assert statements["Sources"]["Resource"] == "arn:aws:s3:::my-source-bucket/*"
    assert policy["StartJobs"]["Resource"][0] == stack.outputs["JobQueue"]
    assert [sid for sid, each in policy.items() if each["Resource"] == "*"] == ["LookAtJobs"]


def test_the_policies_files_say_what_the_template_says(stack: Stack) -> None:
    role = stack.outputs["JobRoleArn"].rsplit("/", 1)[-1]
    for file, made in (("pipeline-policy.json", stack.policy()), ("worker-policy.json", stack.role(role)[0])):
        written = read_policy(FOLDER / file)
        assert unknown_operations(written, ["batch"]) == []
        assert actions_by_sid(written) == actions_by_sid(made)
        conditions = {sid: each.get("Condition") for sid, each in written.items()}
        assert conditions == {sid: each.get("Condition") for sid, each in made.items()}


def test_the_pipeline_takes_the_outputs_from_the_environment(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, output in ENVIRONMENT.items():
        monkeypatch.setenv(variable, stack.outputs[output])
    (settings,) = load_file(FOLDER / "defs.yaml")
    executor = settings.executor
    assert isinstance(executor, AwsBatchExecutorSettings)
    assert settings.output.root.startswith(stack.outputs["RootUri"])
    assert executor.job_queue == stack.outputs["JobQueue"]
    assert executor.job_definition == stack.outputs["JobDefinition"] == "batch-assets-worker"
    assert executor.queue_url == stack.outputs["QueueUrl"]


def test_the_image_has_the_pipelines_model(
    pipeline: PipelineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which files the image gets is decided by the code that decides it for the pipeline."""
    text = (FOLDER / "Dockerfile").read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
    assert re.findall(r"--target (\w+)", text) == ["worker"]
    assert " AS worker\n" in (REPOSITORY / "Dockerfile").read_text()
    (code,) = re.findall(r'^RUN python -c "(.+)" "\$\{MODEL\}" "\$\{REVISION\}"$', text, re.MULTILINE)
    located: list[ModelSettings] = []
    monkeypatch.setattr("batch_assets.encoders.weights.locate_model", located.append)
    monkeypatch.setattr("sys.argv", ["-c", arguments["MODEL"], arguments["REVISION"]])
    exec(code, {})
    assert [(model.id, model.revision) for model in located] == [(pipeline.model.id, pipeline.model.revision)]


def test_the_readme_names_every_output_and_parameter() -> None:
    text, content = (FOLDER / "README.md").read_text(), read_template(FOLDER)
    assert [
        name for name in (*content["Parameters"], *content["Outputs"], *ENVIRONMENT) if name not in text
    ] == []
