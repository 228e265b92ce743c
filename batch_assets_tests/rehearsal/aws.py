"""Unmodified boto3 clients of a rehearsal server, and the steps that most tests share."""

import functools
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config

from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.server import RehearsalServer
from batch_assets_tests.waiting import wait_until

TITAN = "amazon.titan-embed-text-v2:0"
ROLE = "arn:aws:iam::123456789012:role/batch"
ENDED = {"Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired"}


@functools.cache
def session() -> boto3.Session:
    """One for all tests: it keeps the service models that it has read."""
    return boto3.Session(aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1")


class Aws:
    """One bucket, one server whose clock stands still until a test moves it."""

    def __init__(self, server: RehearsalServer) -> None:
        self.server = server
        # Moto's buckets are the process's.
        self.bucket = f"rehearsal-{uuid.uuid4().hex[:12]}"
        self.s3.create_bucket(Bucket=self.bucket)
        self.made = 0

    def client(self, service: str, retries: bool = False, region: str = "us-east-1") -> Any:
        attempts = {"total_max_attempts": 4 if retries else 1, "mode": "standard"}
        return session().client(
            service,
            endpoint_url=self.server.endpoint,
            region_name=region,
            config=Config(retries=attempts),  # pyright: ignore[reportArgumentType]
        )

    @functools.cached_property
    def s3(self) -> Any:
        return self.client("s3")

    @functools.cached_property
    def bedrock(self) -> Any:
        return self.client("bedrock")

    def put(self, lines: list[Any], key: str = "in/a.jsonl") -> str:
        """Write request lines (objects, or text as it is); the input folder's URI."""
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        self.s3.put_object(Bucket=self.bucket, Key=key, Body="\n".join(texts) + "\n")
        return f"s3://{self.bucket}/{key.rsplit('/', 1)[0]}/"

    def put_texts(self, count: int, key: str = "in/a.jsonl") -> str:
        return self.put([request(number) for number in range(count)], key)

    def creation(self, **changes: Any) -> dict[str, Any]:
        """Arguments of a create call that is in order."""
        self.made += 1
        return {
            "jobName": f"job-{self.made}",
            "roleArn": ROLE,
            "modelId": TITAN,
            "inputDataConfig": {"s3InputDataConfig": {"s3Uri": f"s3://{self.bucket}/in/"}},
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"s3://{self.bucket}/out/"}},
        } | changes

    def create(self, **changes: Any) -> str:
        return self.bedrock.create_model_invocation_job(**self.creation(**changes))["jobArn"]

    def get(self, arn: str) -> dict[str, Any]:
        return self.bedrock.get_model_invocation_job(jobIdentifier=arn)

    def reach(self, arn: str, *statuses: str, step: float | None = None) -> dict[str, Any]:
        """Move the clock by steps of seconds until the job is in one of these states (default: any end)."""
        wanted = set(statuses) or ENDED
        step = step or (30 if statuses else 200)
        job = self.server.jobs.by_id[arn.rsplit("/", 1)[1]]

        def reached() -> bool:
            status = job.status
            assert status in wanted or status not in ENDED, job
            if status not in wanted:
                self.server.set_clock(advance=step)
            return status in wanted

        wait_until(reached, lambda: job)
        return self.get(arn)

    def run(self, **changes: Any) -> dict[str, Any]:
        """Create a job and see it end."""
        return self.reach(self.create(**changes))

    def written(self, prefix: str = "out/") -> list[str]:
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        return [item["Key"] for item in found]

    def raw(self, job: dict[str, Any], name: str = "a.jsonl.out") -> bytes:
        key = f"out/{job['jobArn'].rsplit('/', 1)[1]}/{name}"
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def results(self, job: dict[str, Any], name: str = "a.jsonl.out") -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw(job, name).splitlines()]

    def manifest(self, job: dict[str, Any]) -> dict[str, int]:
        return json.loads(self.raw(job, "manifest.json.out"))


def request(number: int, **body: Any) -> dict[str, Any]:
    model_input = {"inputText": f"text number {number}", "dimensions": 256} | body
    return {"recordId": f"{number:011d}", "modelInput": model_input}


@contextmanager
def aws(speed: float = 0, **scenario: Any) -> Iterator[Aws]:
    """A rehearsal with a still clock and a minimum of one record, otherwise as `scenario` says."""
    quotas = {"min_records": 1} | scenario.pop("quotas", {})
    with RehearsalServer(Scenario.of(scenario | {"quotas": quotas}), speed=speed) as server:
        yield Aws(server)
