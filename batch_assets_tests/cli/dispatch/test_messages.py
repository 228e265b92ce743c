"""`batch-assets dispatch`: what becomes of messages, good ones and bad ones."""

import json
import signal
from pathlib import Path

import pytest

from batch_assets_tests.cli.dispatch.steps import SLOW, STALLED, end, get, message, put, results_are, work
from batch_assets_tests.command import Machine
from batch_assets_tests.dispatch.valkey import Valkey, subscribed
from batch_assets_tests.gateway.computing import digest_of
from batch_assets_tests.gateway.model_servers import RunningServer, model_server
from batch_assets_tests.gateway.scenario import Fault, Refusal, Scenario
from batch_assets_tests.waiting import wait_until


def test_every_message_is_answered_once(machine: Machine, server: RunningServer, queue: str) -> None:
    put(machine, queue, [message(number) for number in range(100)])
    work(machine, queue, server)
    results = get(machine, queue, 100)
    assert {result["status_code"] for result in results.values()} == {200}
    assert {len(result["payload"]["data"]) for result in results.values()} == {1}
    assert server.computed() == {digest_of(f"text {number}"): 1 for number in range(100)}


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
        '{"id": "m\\ud800", "payload": {"input": "half a pair"}}',
    ]
    put(machine, queue, [*bad, message(3)])
    work(machine, queue, server)
    results = get(machine, queue, 4)
    assert {results[each]["error_code"] for each in ("m1", "m2", "m\ud800")} == {"INVALID_REQUEST"}
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
        results = subscribed(client, "batch-queue-result")
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
        result = json.loads(next(results))
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
