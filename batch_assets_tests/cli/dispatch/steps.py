"""Steps of tests that run `batch-assets dispatch` as people start it."""

import json
import time
from collections.abc import Callable
from typing import Any

from batch_assets.dispatch.queues.base import Depth
from batch_assets_tests.command import Machine
from batch_assets_tests.forking import CommandProcess
from batch_assets_tests.gateway.model_servers import RunningServer
from batch_assets_tests.gateway.scenario import Fault, Latency, Scenario
from batch_assets_tests.waiting import PATIENCE_SECONDS

SLOW = Scenario(latency=Latency(slots=8, seconds=0.05))
STALLED = Scenario(faults=[Fault(kind="stall", text="never")])
LEASE = ("--lease-seconds", "2")


def message(
    number: int | str, *, text: str | None = None, seconds: float = 3_600, **fields: Any
) -> dict[str, Any]:
    payload = {"model": "test-model", "input": text or f"text {number}"}
    return {"id": f"m{number}", "deadline": str(int(time.time() + seconds)), "payload": payload, **fields}


def put(machine: Machine, queue: str, messages: list[Any]) -> None:
    file = machine.home / "messages.jsonl"
    lines = (each if isinstance(each, str) else json.dumps(each) for each in messages)
    file.write_text("".join(line + "\n" for line in lines))
    done = machine.run("dispatch", "--queue", queue, "--put", file)
    assert (done.returncode, done.stdout) == (0, f"put {len(messages)} messages into asked\n"), done.stderr


def get(machine: Machine, queue: str, number: int) -> dict[str, dict[str, Any]]:
    """So many results, by their ids, of which none comes twice."""
    done = machine.run("dispatch", "--queue", queue, "--get", number)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == number
    found = {result["id"]: result for result in results}
    assert len(found) == number
    return found


def work(machine: Machine, queue: str, server: RunningServer, *flags: object) -> None:
    """Run a worker until the queue is empty."""
    done = machine.run("dispatch", "--queue", queue, "--endpoint", server.url, "--until-empty", *flags)
    assert done.returncode == 0, done.stderr


def end(process: CommandProcess) -> int | None:
    """Wait for its end; its exit code."""
    process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode


def results_are(machine: Machine, queue: str) -> Callable[[], int]:
    """How many results are unread, asked of the worker's own queue."""
    look = depth_of(machine, queue)
    return lambda: look().results


def depth_of(machine: Machine, queue: str) -> Callable[[], Depth]:
    """How much there is, asked of the worker's own queue."""
    import asyncio

    from batch_assets.dispatch.queues.urls import queue_of
    from batch_assets.requests.database import RequestsDatabase

    database = RequestsDatabase(f"sqlite:///{machine.home}/batch_assets/requests.db")

    async def count() -> Depth:
        asked = queue_of(queue, None, lambda: database)
        await asked.open()
        try:
            return await asked.depth()
        finally:
            await asked.close()

    return lambda: asyncio.run(count())
