"""AWS as tests meet it: a rehearsal of its own for each, with the faults that the test names.

What a pipeline does there is in `sites.py`.
"""

import contextlib
import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.server import RehearsalServer
from batch_assets_tests.forking import CommandProcess
from batch_assets_tests.pauses import skipping
from batch_assets_tests.waiting import wait_until

TITAN = "amazon.titan-embed-text-v2:0"
ROLE = "arn:aws:iam::123456789012:role/batch"
REGION = "us-east-1"
DIMENSIONS = 256
SPEED = 2_000.0

# Jobs that end at once, and may be small; each test says what else is to happen.
QUICK: dict[str, Any] = {
    "quotas": {"min_records": 5, "concurrent_jobs": 4},
    "timing": dict.fromkeys(("submitted", "validating", "scheduled", "stopping"), (0, 0))
    | {"running": (1, 1)},
    "transform": {"timing": {"starting": (0, 0), "running": (1, 1), "stopping": (0, 0)}},
    "batch": {"timing": dict.fromkeys(("submitted", "runnable", "starting", "running"), (0, 0))},
}
_numbers = itertools.count()


@dataclass
class Rehearsal:
    """A server and what leads to it."""

    server: RehearsalServer
    environment: dict[str, str]
    bucket: str = field(default_factory=lambda: f"bucket-{uuid.uuid4().hex[:12]}")
    _queues: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client("s3").create_bucket(Bucket=self.bucket)

    def client(self, service: str) -> Any:
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.server.endpoint,
            region_name=REGION,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )

    def change(self, **scenario: Any) -> None:
        """Other faults from now on."""
        self.server.scenario = self.server.scenario.changed(scenario)

    @property
    def jobs(self) -> list[Any]:
        """The jobs of this test's pipelines at Bedrock and SageMaker, others' left out."""
        return [job for job in self.server.jobs.all() if not job.foreign] + self.server.transforms.all()

    def let_pass(self, seconds: float) -> None:
        """Jump ahead once Bedrock's jobs have begun: one whose input is still read would expire instead."""

        def waiting() -> list[Any]:
            return [job for job in self.server.jobs.all() if job.active and job.began is None]

        wait_until(lambda: not waiting(), waiting)
        self.server.set_clock(advance=seconds)

    def calls(self, operation: str) -> int:
        return sum(self.server.books.calls[operation].values())

    def all_calls(self) -> int:
        """How often anybody has called a service."""
        return sum(outcomes.total() for outcomes in list(self.server.books.calls.values()))

    def paid_twice(self) -> int:
        """Inputs that were paid for again though a whole answer had come."""
        return len(self.server.books.paid_again())

    def sent(self) -> int:
        """Records that any job, or call, was given."""
        return sum(known.times for known in self.server.books.processed.values())

    def objects(self, prefix: str = "") -> list[str]:
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def queue(self) -> str:
        """A queue that EventBridge feeds with every service's state changes; its URL."""
        sqs, events = self.client("sqs"), self.client("events")
        name = f"events-{next(_numbers)}-{uuid.uuid4().hex[:6]}"
        url = sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.put_rule(Name=name, EventPattern='{"source": ["aws.bedrock", "aws.sagemaker", "aws.batch"]}')
        events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": arn}])
        self._queues.append((name, url))
        return str(url)

    def close(self) -> None:
        """Moto's rules are the process's: they would pass every later test's events on."""
        for name, url in self._queues:
            self.client("events").remove_targets(Rule=name, Ids=["1"])
            self.client("events").delete_rule(Name=name)
            self.client("sqs").delete_queue(QueueUrl=url)


def kill_after_calls(process: CommandProcess, rehearsal: Rehearsal, calls: int) -> None:
    """Kill -9 of a run once the services have been called so many times more; or it ends before."""
    enough = rehearsal.all_calls() + calls
    wait_until(lambda: rehearsal.all_calls() >= enough or process.poll() is not None, rehearsal.all_calls)
    process.kill()
    process.communicate()


@contextlib.contextmanager
def rehearsed(monkeypatch: pytest.MonkeyPatch, speed: float = SPEED, **scenario: Any) -> Iterator[Rehearsal]:
    """A server with the faults of `scenario`, and the environment that leads AWS clients to it."""
    merged = Scenario.of(QUICK).changed(scenario)
    with RehearsalServer(merged, speed=speed) as server, skipping(server.set_clock):
        environment = {
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        rehearsal = Rehearsal(server, environment)
        yield rehearsal
        rehearsal.close()
