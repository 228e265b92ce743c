"""Steps of tests at a queue on SQS."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

from batch_assets.dispatch.messages import parse
from batch_assets.dispatch.queues.base import Claimed, Ending, Finished
from batch_assets.dispatch.queues.sqs import SqsQueue
from batch_assets.requests.database import RequestsDatabase
from batch_assets_tests.waiting import wait_until

REGION, LONG = "us-east-1", 1_000.0
run = asyncio.run


def client() -> Any:
    import boto3

    return boto3.Session().client("sqs", region_name=REGION)


def create(name: str, **attributes: str) -> None:
    client().create_queue(QueueName=name, Attributes=attributes)


@contextlib.contextmanager
def opened(name: str, database: RequestsDatabase, results: str | None = None) -> Iterator[SqsQueue]:
    queue = SqsQueue(REGION, name, database, results)
    run(queue.open())
    yield queue
    run(queue.close())


def message(message_id: str) -> bytes:
    return json.dumps({"id": message_id, "payload": {"messages": []}}).encode()


def finished(claimed: Claimed, result: bytes | None = None, ending: Ending = Ending.COMPLETED) -> Finished:
    read = parse(claimed.body)
    return Finished(claimed, read.token, result or read.shape.answer(200, b"{}"), ending)


def claim(queue: SqsQueue, most: int = 10, lease: float = LONG) -> list[Claimed]:
    return run(queue.claim(most, lease))


def claimed_again(queue: SqsQueue) -> Claimed:
    """The one message, when it is delivered again."""
    taken: list[Claimed] = []
    wait_until(lambda: taken.extend(claim(queue)) or taken, pause=0.05)
    (one,) = taken
    return one


def results_of(queue: SqsQueue) -> list[Any]:
    return [json.loads(result) for result in run(queue.take_results(100))]


def put(queue: SqsQueue, *ids: str) -> None:
    run(queue.put([message(each) for each in ids]))
