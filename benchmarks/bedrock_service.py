"""A Bedrock that lives in simulated time, behind the methods of boto3's clients.

It knows jobs, their states, a quota, and a queue of events. It reads and writes no files, and
nothing ever goes wrong: faults are the rehearsal's (`bedrock_chaos`).
"""

import datetime
import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from batch_assets.executors.bedrock.account import BedrockAccount

START = 1_800_000_000.0
CREATE_SECONDS, CALL_SECONDS = 0.5, 0.2  # what a call takes
EVENT_SECONDS = (1.0, 5.0)  # from a change of state to its message in the queue
HIDDEN_SECONDS = 30.0
MODEL = "amazon.titan-embed-text-v2:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job"


class QuotaExceeded(Exception):
    """As boto3 raises it."""

    response = {  # noqa: RUF012  boto3's attribute
        "Error": {"Code": "ServiceQuotaExceededException", "Message": "too many jobs"},
        "ResponseMetadata": {"HTTPStatusCode": 400},
    }


@dataclass(frozen=True)
class Job:
    """A job; `changes` are the moments of its states, the last one is its end."""

    name: str
    created: float
    changes: list[tuple[float, str]]

    @property
    def ended(self) -> float:
        return self.changes[-1][0]

    def status(self, now: float) -> str:
        return next(status for moment, status in reversed(self.changes) if moment <= now)


@dataclass
class SimulatedBedrock:
    """One account and model: `quota` jobs at once; each takes between `fastest` and `slowest` seconds.

    How long a job takes depends on its number alone, so that everyone has the same work to do;
    durations are even on a logarithmic scale. Every change of state becomes a message in the
    queue. `calls` counts the control plane's calls, a page of a list as one.
    """

    quota: int
    fastest: float
    slowest: float
    now: float = START
    calls: Counter[str] = field(default_factory=Counter)
    jobs: dict[str, Job] = field(default_factory=dict)
    _tokens: dict[str, str] = field(default_factory=dict)
    _ends: list[float] = field(default_factory=list)
    _messages: list[tuple[float, int, str]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def create_model_invocation_job(self, **call: Any) -> dict[str, Any]:
        self.calls["create"] += 1
        self.now += CREATE_SECONDS
        token = call["clientRequestToken"]
        if token in self._tokens:
            return {"jobArn": self._tokens[token]}
        while self._ends and self._ends[0] <= self.now:
            heapq.heappop(self._ends)
        if len(self._ends) >= self.quota:
            raise QuotaExceeded
        number = len(self.jobs)
        chance = random.Random(number)
        end = self.now + math.exp(chance.uniform(math.log(self.fastest), math.log(self.slowest)))
        steps = (0.0, chance.uniform(5, 20), chance.uniform(20, 60), chance.uniform(30, 120))
        moments = [*(self.now + step for step in itertools.accumulate(steps)), end]
        statuses = ("Submitted", "Validating", "Scheduled", "InProgress", "Completed")
        arn = self._tokens[token] = f"{ARN}/{number:012d}"
        self.jobs[arn] = Job(call["jobName"], self.now, list(zip(moments, statuses, strict=True)))
        heapq.heappush(self._ends, end)
        for moment, status in self.jobs[arn].changes:
            body = orjson.dumps({"detail": {"batchJobArn": arn, "status": status}}).decode()
            heapq.heappush(
                self._messages, (moment + chance.uniform(*EVENT_SECONDS), next(self._numbers), body)
            )
        return {"jobArn": arn}

    def get_model_invocation_job(self, jobIdentifier: str) -> dict[str, Any]:  # noqa: N803  AWS's name
        self.calls["get"] += 1
        self.now += CALL_SECONDS
        return self._told(jobIdentifier)

    def list_model_invocation_jobs(self, **call: Any) -> dict[str, Any]:
        """Newest first."""
        self.calls["list"] += 1
        self.now += CALL_SECONDS
        after = call["submitTimeAfter"].timestamp() if "submitTimeAfter" in call else 0.0
        newest = itertools.takewhile(lambda item: item[1].created > after, reversed(self.jobs.items()))
        arns = [arn for arn, _ in newest]
        start, size = int(call.get("nextToken", 0)), call["maxResults"]
        more = {"nextToken": str(start + size)} if len(arns) > start + size else {}
        return {"invocationJobSummaries": [self._told(arn) for arn in arns[start : start + size]], **more}

    def _told(self, arn: str) -> dict[str, Any]:
        job = self.jobs[arn]
        submitted = datetime.datetime.fromtimestamp(job.created, datetime.UTC)
        return {
            "jobArn": arn,
            "jobName": job.name,
            "modelId": MODEL,
            "status": job.status(self.now),
            "submitTime": submitted,
        }

    def next_message(self) -> float:
        """When the next message can be received."""
        return self._messages[0][0] if self._messages else math.inf

    def receive_message(self, **call: Any) -> dict[str, Any]:
        found: list[dict[str, str]] = []
        while self.next_message() <= self.now and len(found) < call["MaxNumberOfMessages"]:
            _, number, body = heapq.heappop(self._messages)
            found.append({"Body": body, "ReceiptHandle": str(number)})
            heapq.heappush(self._messages, (self.now + HIDDEN_SECONDS, number, body))
        return {"Messages": found}

    def delete_message_batch(self, **call: Any) -> None:
        gone = {int(entry["ReceiptHandle"]) for entry in call["Entries"]}
        self._messages = [message for message in self._messages if message[1] not in gone]
        heapq.heapify(self._messages)


@dataclass
class SimulatedAccount(BedrockAccount):
    """The account of a process, all of whose clients are the simulation."""

    service: SimulatedBedrock = field(default_factory=lambda: SimulatedBedrock(1, 1, 1))

    def client(self, service: str, region: str, tries: int = 3) -> Any:
        return self.service
