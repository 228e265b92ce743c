"""`batch-assets dispatch` as people start it: real queues, a model server, kills."""

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_assets import crash_points
from batch_assets.cli.app import run_command
from batch_assets_tests.command import Machine, make_machine
from batch_assets_tests.dispatch.valkey import Valkey, running_valkey
from batch_assets_tests.forking import CommandProcess
from batch_assets_tests.gateway.computing import digest_of
from batch_assets_tests.gateway.model_servers import RunningServer, model_server
from batch_assets_tests.gateway.scenario import Fault, Latency, Refusal, Scenario
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until

SLOW = Scenario(latency=Latency(slots=8, seconds=0.05))
STALLED = Scenario(faults=[Fault(kind="stall", text="never")])
LEASE = ("--lease-seconds", "2")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return make_machine(tmp_path / "home")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with model_server(tmp_path) as running:
        yield running


@pytest.fixture
def redis_server() -> Iterator[Valkey]:
    with running_valkey() as running:
        yield running


@pytest.fixture(params=["local", "redis"])
def queue(request: pytest.FixtureRequest) -> str:
    """The URL of a queue, of each kind that a kill is survived by."""
    if request.param == "local":
        return "local:asked"
    running: Valkey = request.getfixturevalue("redis_server")
    return f"redis://127.0.0.1:{running.port}/0?queue=asked"


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
    import asyncio

    from batch_assets.dispatch.queues.urls import queue_of
    from batch_assets.requests.database import RequestsDatabase

    database = RequestsDatabase(f"sqlite:///{machine.home}/batch_assets/requests.db")

    async def count() -> int:
        asked = queue_of(queue, None, lambda: database)
        await asked.open()
        try:
            return (await asked.depth()).results
        finally:
            await asked.close()

    return lambda: asyncio.run(count())


def test_every_message_is_answered_once(machine: Machine, server: RunningServer, queue: str) -> None:
    put(machine, queue, [message(number) for number in range(100)])
    work(machine, queue, server)
    results = get(machine, queue, 100)
    assert {result["status_code"] for result in results.values()} == {200}
    assert {len(result["payload"]["data"]) for result in results.values()} == {1}
    assert server.computed() == {digest_of(f"text {number}"): 1 for number in range(100)}


def test_a_killed_workers_messages_are_delivered_again(machine: Machine, tmp_path: Path, queue: str) -> None:
    with model_server(tmp_path, SLOW) as server:
        put(machine, queue, [message(number) for number in range(200)])
        unread = results_are(machine, queue)
        worker = machine.start(
            "dispatch", "--queue", queue, "--endpoint", server.url, "--concurrency", 8, *LEASE
        )
        wait_until(lambda: unread() >= 20, pause=0.05)
        worker.send_signal(signal.SIGKILL)
        end(worker)
        work(machine, queue, server, *LEASE)
        results = get(machine, queue, 200)
        assert {result["status_code"] for result in results.values()} == {200}
        # What was held: in flight, or answered and not stored yet.
        assert sum(server.computed().values()) <= 200 + 3 * 8


def run_until_death() -> object:
    """Run the command, which dies when it comes to the point in the environment for the third time."""
    times = itertools.count(1)

    def die(reached: str) -> None:
        if reached == os.environ["DIES_AT"] and next(times) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    crash_points.watchers.append(die)
    return run_command()


@pytest.mark.parametrize("point", ["message-claimed", "message-ended", "result-stored"])
def test_a_worker_that_dies_between_two_steps_loses_nothing(
    machine: Machine, tmp_path: Path, queue: str, point: str
) -> None:
    with model_server(tmp_path, SLOW) as server:
        put(machine, queue, [message(number) for number in range(60)])
        flags = ["dispatch", "--queue", queue, "--endpoint", server.url, "--concurrency", "4", *LEASE]
        worker = CommandProcess(flags, {**machine.environment, "DIES_AT": point}, run_until_death)
        assert end(worker) == -signal.SIGKILL
        work(machine, queue, server, *LEASE)
        results = get(machine, queue, 60)
        assert {result["status_code"] for result in results.values()} == {200}


def test_sigterm_gives_back_what_is_not_in_flight(machine: Machine, tmp_path: Path, queue: str) -> None:
    with model_server(tmp_path, SLOW) as server:
        put(machine, queue, [message(number) for number in range(200)])
        unread = results_are(machine, queue)
        # Leases so long that only what is given back can be claimed again.
        lease = ("--lease-seconds", "3000")
        worker = machine.start(
            "dispatch", "--queue", queue, "--endpoint", server.url, "--concurrency", 4, *lease
        )
        wait_until(lambda: unread() >= 10, pause=0.05)
        worker.send_signal(signal.SIGTERM)
        assert end(worker) == 0
        assert sum(server.computed().values()) == unread()  # nothing was broken off, nothing is lost
        work(machine, queue, server, *lease)
        get(machine, queue, 200)
        assert set(server.computed().values()) == {1}


def test_what_is_still_in_flight_after_the_drain_goes_back(machine: Machine, tmp_path: Path) -> None:
    with model_server(tmp_path, STALLED) as server:
        put(machine, "local:asked", [message(1, text="never")])
        worker = machine.start(
            "dispatch", "--queue", "local:asked", "--endpoint", server.url, "--drain-timeout", 0.5,
            "--lease-seconds", 3000,
        )  # fmt: skip
        wait_until(server.entries, pause=0.05)
        worker.send_signal(signal.SIGINT)
        assert end(worker) == 0
        server.restart(Scenario())
        work(machine, "local:asked", server)
        assert get(machine, "local:asked", 1)["m1"]["status_code"] == 200


def test_deadlines_end_messages_before_and_in_their_calls(
    machine: Machine, tmp_path: Path, queue: str
) -> None:
    with model_server(tmp_path, STALLED) as server:
        put(machine, queue, [message(1, seconds=-5), message(2, text="never", seconds=2), message(3)])
        work(machine, queue, server)
        results = get(machine, queue, 3)
        assert results["m1"]["error_code"] == results["m2"]["error_code"] == "DEADLINE_EXCEEDED"
        assert results["m3"]["status_code"] == 200
        assert digest_of("text 1") not in server.computed()


def test_what_the_server_cannot_do_now_is_tried_again(machine: Machine, tmp_path: Path) -> None:
    faults = [
        Fault(kind="refuse", refusal=Refusal(status=429, retry_after=1), text="busy", times=1),
        Fault(kind="refuse", refusal=Refusal(status=500), text="broken", times=1),
        Fault(kind="drop", text="dropped", times=1),
        Fault(kind="html", text="page", times=1),
        Fault(kind="refuse", refusal=Refusal(status=400), text="wrong"),
    ]
    with model_server(tmp_path, Scenario(faults=faults)) as server:
        texts = ["busy", "broken", "dropped", "page", "wrong"]
        put(machine, "local:asked", [message(text, text=text) for text in texts])
        work(machine, "local:asked", server)
        results = get(machine, "local:asked", 5)
        assert [results[f"m{text}"]["status_code"] for text in texts] == [200, 200, 200, 200, 400]
        assert results["mwrong"]["error_code"] == "INFERENCE_ERROR"
        assert "The request is not valid." in results["mwrong"]["error_message"]
        assert server.computed()[digest_of("wrong")] == 0


def test_a_server_that_goes_away_costs_no_message(machine: Machine, tmp_path: Path) -> None:
    with model_server(tmp_path, SLOW) as server:
        put(machine, "local:asked", [message(number) for number in range(100)])
        unread = results_are(machine, "local:asked")
        worker = machine.start(
            "dispatch", "--queue", "local:asked", "--endpoint", server.url, "--until-empty"
        )
        wait_until(lambda: unread() >= 10, pause=0.05)
        server.restart(SLOW, signal.SIGKILL)
        assert end(worker) == 0
        results = get(machine, "local:asked", 100)
        assert {result["status_code"] for result in results.values()} == {200}


def test_a_queue_that_goes_away_costs_no_message(
    machine: Machine, tmp_path: Path, redis_server: Valkey
) -> None:
    queue = f"redis://127.0.0.1:{redis_server.port}/0?queue=asked"
    with model_server(tmp_path, SLOW) as server:
        put(machine, queue, [message(number) for number in range(100)])
        unread = results_are(machine, queue)
        worker = machine.start(
            "dispatch", "--queue", queue, "--endpoint", server.url, "--until-empty", *LEASE
        )
        wait_until(lambda: unread() >= 10, pause=0.05)
        redis_server.kill()
        redis_server.start()
        assert end(worker) == 0
        results = get(machine, queue, 100)
        assert {result["status_code"] for result in results.values()} == {200}


def test_cancelled_messages_are_told_so(machine: Machine, tmp_path: Path, queue: str) -> None:
    with model_server(tmp_path, STALLED) as server:
        put(machine, queue, [message(1), message(2, text="never")])
        assert machine.run("dispatch", "--queue", queue, "--cancel", "m1").returncode == 0
        worker = machine.start("dispatch", "--queue", queue, "--endpoint", server.url, "--until-empty")
        wait_until(server.entries, pause=0.05)
        assert machine.run("dispatch", "--queue", queue, "--cancel", "m2").returncode == 0
        assert end(worker) == 0
        results = get(machine, queue, 2)
        assert {result["error_code"] for result in results.values()} == {"CANCELLED"}
        assert digest_of("text 1") not in server.computed()


def test_a_bad_message_is_told_so_and_stops_no_other(
    machine: Machine, server: RunningServer, queue: str
) -> None:
    bad = [
        '{"id": "m1"}',
        "no JSON",
        json.dumps({"payload": {"input": "x"}}),
        '{"id": "m2", "payload": {"input": NaN}}',
    ]
    put(machine, queue, [*bad, message(3)])
    work(machine, queue, server)
    results = get(machine, queue, 3)
    assert results["m1"]["error_code"] == results["m2"]["error_code"] == "INVALID_REQUEST"
    assert results["m3"]["status_code"] == 200


def test_two_requests_of_one_id_are_both_answered_and_one_put_twice_once(
    machine: Machine, server: RunningServer, queue: str
) -> None:
    twice = message(2)
    put(machine, queue, [message(1, text="one"), message(1, text="two"), twice, twice])
    work(machine, queue, server)
    put(machine, queue, [twice])
    work(machine, queue, server)
    done = machine.run("dispatch", "--queue", queue, "--get", 3)
    assert sorted(json.loads(line)["id"] for line in done.stdout.splitlines()) == ["m1", "m1", "m2"]
    assert results_are(machine, queue)() == 0
    assert server.computed()[digest_of("text 2")] == 1


def test_claims_stop_while_nobody_reads_results(machine: Machine, tmp_path: Path) -> None:
    with model_server(tmp_path, SLOW) as server:
        put(machine, "local:asked", [message(number) for number in range(100)])
        unread = results_are(machine, "local:asked")
        worker = machine.start(
            "dispatch", "--queue", "local:asked", "--endpoint", server.url, "--results-max", 10, "--concurrency", 4,
            "--until-empty",
        )  # fmt: skip
        wait_until(lambda: unread() >= 10, pause=0.05)
        reader = machine.start("dispatch", "--queue", "local:asked", "--get", 100)
        assert end(worker) == 0
        assert end(reader) == 0


def test_the_first_publications_example_word_for_word(
    machine: Machine, tmp_path: Path, redis_server: Valkey
) -> None:
    import redis

    with model_server(
        tmp_path, Scenario(model="food-review", noted_headers=["x-gateway-inference-objective"])
    ) as server:
        client = redis.Redis(port=redis_server.port)
        results = client.pubsub(ignore_subscribe_messages=True)
        results.subscribe("batch-queue-result")
        worker = machine.start(
            "dispatch", "--endpoint", server.url, "--concurrency", 8, "--inferenceObjective", "batch",
            "--request-merge-policy", "random-robin", "--message-queue-impl", "redis-pubsub",
            "--redis.request-queue-name", "batch-queue", "--redis.retry-queue-name", "batch-sortedset-retry",
            "--redis.result-queue-name", "batch-queue-result", "--redis.url", f"redis://127.0.0.1:{redis_server.port}",
        )  # fmt: skip
        asked = (
            '{"id" : "testmsg", "payload":{ "model":"food-review", "prompt":"hi"}, "deadline" :"9999999999" }'
        )
        wait_until(lambda: client.publish("batch-queue", asked), pause=0.05)
        found: list[Any] = []
        wait_until(lambda: found.append(results.get_message(timeout=1.0)) or found[-1])
        result = json.loads(found[-1]["data"])
        assert (result["id"], result["status_code"]) == ("testmsg", 200)
        assert result["payload"]["object"] == "text_completion"
        worker.send_signal(signal.SIGTERM)
        assert end(worker) == 0
        assert [entry.headers for entry in server.entries()] == [{"x-gateway-inference-objective": "batch"}]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--queue", "kafka://host/x", "--endpoint", "http://h"], "kafka://host/x: no such kind of queue"),
        (["--queue", "local:x"], "endpoint: name the model server"),
        (["--endpoint", "127.0.0.1:8000"], "write http://host:port"),
        (["--endpoint", "http://h", "--concurrency", "many"], "concurrency"),
        (["-f", "gates.yaml"], "type should be one of controller, constant"),
        (["-f", "field.yaml"], "queus: there is no such field; known: api_key_env, concurrency"),
    ],
)
def test_what_cannot_work_is_said_at_once(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gates.yaml").write_text("endpoint: http://h\nqueues: [{url: 'local:x', gates: [{type: aimd}]}]\n")
    Path("field.yaml").write_text("endpoint: http://h\nqueus: local:x\n")
    done = machine.run("dispatch", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
