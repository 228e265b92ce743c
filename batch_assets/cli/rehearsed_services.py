"""What a rehearsal changes for each service: the pipeline's settings, the scenario, and what lies on S3.

The verb is in `rehearse.py`, the deployment in `rehearsing.py`.
"""

import json
from pathlib import Path
from typing import Any

from batch_assets.errors import ConfigurationError
from batch_assets.rehearsal.faults import Scenario
from batch_assets.settings.aws_batch import AwsBatchExecutorSettings
from batch_assets.settings.bedrock import BedrockExecutorSettings
from batch_assets.settings.executors import ServiceSettings
from batch_assets.settings.pipeline import PipelineSettings

BUCKET = "rehearsal"
REGION = "us-east-1"
KEYS = {"AWS_ACCESS_KEY_ID": "rehearsal", "AWS_SECRET_ACCESS_KEY": "rehearsal"}
SOURCES = {"aws.bedrock", "aws.sagemaker", "aws.batch"}
WIDTH = 384  # of the default model's vectors


def deferred_of(settings: PipelineSettings) -> ServiceSettings:
    """The pipeline's executor, if a rehearsal has a service for it. Raises ConfigurationError."""
    if isinstance(settings.executor, ServiceSettings):
        return settings.executor
    raise ConfigurationError(
        f"{settings.name}: executor {settings.executor.type} runs on this machine and costs nothing; "
        "`batch-assets run` with --max-samples is its rehearsal"
    )


def lies_on_s3(executor: ServiceSettings) -> bool:
    """Whether source and output must be on S3: the workers of AWS Batch see nothing of this machine."""
    return isinstance(executor, AwsBatchExecutorSettings)


def shards_of(executor: ServiceSettings) -> int:
    """How many shards a sample is cut into. Each worker of AWS Batch loads the model, so there are few."""
    return 8 if isinstance(executor, AwsBatchExecutorSettings) else 40


def localized(executor: ServiceSettings, queue_url: str) -> dict[str, Any]:
    """The executor's fields that are another's at the rehearsal: region, queue, staging, definition."""
    changed: dict[str, Any] = {"region": REGION, "queue_url": queue_url, "poll_seconds": 2.0}
    if isinstance(executor, AwsBatchExecutorSettings):
        if executor.job_definition is not None:
            changed["job_definition"] = _definition(executor.job_definition)
        return changed
    return changed | {"staging": f"s3://{BUCKET}/staging/", "max_jobs": None}


def fitted(scenario: Scenario, settings: PipelineSettings, slots: int | None) -> Scenario:
    """The scenario with the pipeline's own model, and with so many jobs at once, if that is asked for."""
    executor = deferred_of(settings)
    if isinstance(executor, BedrockExecutorSettings):
        return scenario.changed({"quotas": {"concurrent_jobs": slots}}) if slots else scenario
    if isinstance(executor, AwsBatchExecutorSettings):
        return scenario.changed({"batch": {"capacity": slots}}) if slots else scenario
    kind, least = executor.instance_type, executor.instance_count
    instances = (slots or max(1, scenario.transform.quota(kind) // least)) * least
    answers: dict[str, Any] = {"models": {"*": "text"}} if settings.task == "generate" else {}
    width = settings.model.dimensions or WIDTH
    return scenario.changed({"transform": {"instances": {kind: instances}, "width": width, **answers}})


def client(service: str, endpoint: str) -> Any:
    """A client of the rehearsal's AWS."""
    import boto3

    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )


def make_resources(endpoint: str, executor: ServiceSettings) -> str:
    """A bucket, a queue, the rule that sends the services' events to it, and the job definition; the queue's URL."""
    client("s3", endpoint).create_bucket(Bucket=BUCKET)
    sqs, events = client("sqs", endpoint), client("events", endpoint)
    queue_url = str(sqs.create_queue(QueueName="rehearsal-events")["QueueUrl"])
    found = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    events.put_rule(Name="jobs", EventPattern=json.dumps({"source": sorted(SOURCES)}))
    events.put_targets(Rule="jobs", Targets=[{"Id": "queue", "Arn": found["Attributes"]["QueueArn"]}])
    if isinstance(executor, AwsBatchExecutorSettings) and executor.job_definition is not None:
        resources = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": str(executor.memory_mb)}]
        client("batch", endpoint).register_job_definition(
            jobDefinitionName=_definition(executor.job_definition),
            type="container",
            containerProperties={"image": "rehearsal", "resourceRequirements": resources},
        )
    return queue_url


def _definition(asked: str) -> str:
    """The name in a name, name:revision or ARN: the rehearsal has one revision of it."""
    return asked.rsplit("/", 1)[-1].split(":", 1)[0]


def put_sample(endpoint: str, file: Path) -> str:
    """Put the sample on the rehearsal's S3; its URI."""
    client("s3", endpoint).upload_file(str(file), BUCKET, f"sample/{file.name}")
    return f"s3://{BUCKET}/sample/{file.name}"


def fetch_output(endpoint: str, folder: Path) -> None:
    """Copy what lies under the output root from the rehearsal's S3, which ends with it."""
    s3 = client("s3", endpoint)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="output/"):
        for item in page.get("Contents", []):
            file = folder / item["Key"].removeprefix("output/")
            file.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(BUCKET, item["Key"], str(file))
