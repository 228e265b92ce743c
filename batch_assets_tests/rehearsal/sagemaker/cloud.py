"""SageMaker of a rehearsal server as its tests meet it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.server import RehearsalServer
from batch_assets_tests.rehearsal.aws import Aws
from batch_assets_tests.waiting import wait_until

MODEL = "minilm"


class Cloud(Aws):
    """One bucket with input objects, one server whose clock stands still until a test moves it."""

    @cached_property
    def sagemaker(self) -> Any:
        return self.client("sagemaker")

    def put_lines(self, name: str, texts: list[str]) -> None:
        """Write in/<name> as JSON lines of id and text."""
        lines = [json.dumps({"id": f"{number:011d}", "inputs": text}) for number, text in enumerate(texts)]
        self.s3.put_object(Bucket=self.bucket, Key=f"in/{name}", Body="\n".join(lines) + "\n")

    def wanted(self, **changes: Any) -> dict[str, Any]:
        """Arguments of a create call that joins each line's vector to its id."""
        self.made += 1
        return {
            "TransformJobName": f"job-{self.made}",
            "ModelName": MODEL,
            "TransformInput": {
                "DataSource": {
                    "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{self.bucket}/in/"}
                },
                "ContentType": "application/jsonlines",
                "SplitType": "Line",
            },
            "TransformOutput": {
                "S3OutputPath": f"s3://{self.bucket}/out/",
                "Accept": "application/jsonlines",
                "AssembleWith": "Line",
            },
            "DataProcessing": {
                "InputFilter": "$['inputs']",
                "OutputFilter": "$['id','SageMakerOutput']",
                "JoinSource": "Input",
            },
            "TransformResources": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1},
        } | changes

    def start(self, **changes: Any) -> str:
        wanted = self.wanted(**changes)
        self.sagemaker.create_transform_job(**wanted)
        return wanted["TransformJobName"]

    def describe(self, name: str) -> dict[str, Any]:
        return self.sagemaker.describe_transform_job(TransformJobName=name)

    def end(self, name: str) -> dict[str, Any]:
        """Move the clock until the job has ended."""
        job = self.server.transforms.by_name["us-east-1", name]

        def ended() -> bool:
            if job.active:
                self.server.set_clock(advance=100)
            return not job.active

        wait_until(ended, lambda: job)
        return self.describe(name)

    def transform(self, **changes: Any) -> dict[str, Any]:
        """Create a job and see it end."""
        return self.end(self.start(**changes))

    def output(self, name: str = "a.jsonl") -> list[Any]:
        body = self.s3.get_object(Bucket=self.bucket, Key=f"out/{name}.out")["Body"].read()
        return [json.loads(line) for line in body.splitlines()]


@contextmanager
def cloud(speed: float = 0, **scenario: Any) -> Iterator[Cloud]:
    """A rehearsal with a still clock, as `scenario` says."""
    with RehearsalServer(Scenario().changed(scenario), speed=speed) as server:
        yield Cloud(server)
