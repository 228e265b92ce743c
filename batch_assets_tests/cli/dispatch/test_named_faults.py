"""The thirteen faults for which llm-d's batch gateway has a harness, by its names, as a queue worker can have them.

The harness is pull request 653 of llm-d-batch-gateway; the last test is its issue 655.
"""

import json
import signal
from pathlib import Path

from batch_assets_tests.cli.dispatch.steps import (
    SLOW,
    STALLED,
    depth_of,
    end,
    get,
    message,
    put,
    results_are,
    work,
)
from batch_assets_tests.command import Machine
from batch_assets_tests.dispatch.valkey import Valkey
from batch_assets_tests.forking import CommandProcess
from batch_assets_tests.gateway.computing import digest_of
from batch_assets_tests.gateway.model_servers import RunningServer, model_server
from batch_assets_tests.gateway.scenario import Fault, Latency, Refusal, Scenario
from batch_assets_tests.waiting import wait_until

LEASE = ("--lease-seconds", "2")
LONG_LEASE = ("--lease-seconds", "3000")


def start(machine: Machine, queue: str, server: RunningServer, *flags: object) -> CommandProcess:
    return machine.start("dispatch", "--queue", queue, "--endpoint", server.url, *flags)


def kill(worker: CommandProcess) -> None:
    worker.send_signal(signal.SIGKILL)
    end(worker)


def keys_of(redis_server: Valkey) -> dict[str, int]:
    import redis

    with redis.Redis(port=redis_server.port) as client:
        sizes = {"asked": client.zcard("asked"), "claimed": client.zcard("asked-claimed")}
        return {**sizes, "state": client.hlen("asked-state")}  # pyright: ignore[reportReturnType]


def test_create_crash_after_store(machine: Machine, server: RunningServer, queue: str) -> None:
    """A producer dies after its messages are stored and before it hears so: it puts them again."""
    messages = [message(number) for number in range(10)]
    put(machine, queue, messages[:6])
    put(machine, queue, messages)
    work(machine, queue, server)
    get(machine, queue, 10)
    assert set(server.computed().values()) == {1}


def test_cancel_event_lost(machine: Machine, tmp_path: Path, queue: str) -> None:
    """A message is cancelled while its worker is dead: the next one knows."""
    with model_server(tmp_path, STALLED) as server:
        put(machine, queue, [message(1, text="never"), message(2)])
        worker = start(machine, queue, server, *LEASE)
        wait_until(server.entries, pause=0.05)
        kill(worker)
        assert machine.run("dispatch", "--queue", queue, "--cancel", "m1").returncode == 0
        work(machine, queue, server, *LEASE)
        results = get(machine, queue, 2)
        assert results["m1"]["error_code"] == "CANCELLED"
        assert results["m2"]["status_code"] == 200


def test_orphaned_blob(machine: Machine, tmp_path: Path, redis_server: Valkey) -> None:
    """What a killed worker has written of messages goes with them."""
    queue = f"redis://127.0.0.1:{redis_server.port}/0?queue=asked"
    with model_server(tmp_path, SLOW) as server:
        put(machine, queue, [message(number) for number in range(30)])
        unread = results_are(machine, queue)
        worker = start(machine, queue, server, *LEASE)
        wait_until(lambda: unread() >= 5, pause=0.05)
        kill(worker)
        work(machine, queue, server, *LEASE)
        get(machine, queue, 30)
    assert keys_of(redis_server) == {"asked": 0, "claimed": 0, "state": 0}


def test_finalization_strand(machine: Machine, tmp_path: Path, redis_server: Valkey) -> None:
    """All calls are answered, and the queue is away when their results are to be stored: they are stored later."""
    queue = f"redis://127.0.0.1:{redis_server.port}/0?queue=asked"
    with model_server(tmp_path, SLOW) as slow:
        put(machine, queue, [message(number) for number in range(8)])
        worker = start(machine, queue, slow, "--until-empty", *LEASE)
        wait_until(slow.entries, pause=0.05)
        redis_server.kill()
        wait_until(lambda: sum(slow.computed().values()) >= 1, pause=0.05)
        redis_server.start()
        assert end(worker) == 0
        get(machine, queue, 8)


def test_zombie_owner_burns_inference(machine: Machine, tmp_path: Path, queue: str) -> None:
    """A worker that stood still beyond its leases asks nothing of what another one has finished since."""
    with model_server(tmp_path, Scenario(faults=[Fault(kind="stall", text="0", times=1)])) as server:
        put(machine, queue, [message(number) for number in range(5)])
        zombie = start(machine, queue, server, "--concurrency", 1, "--until-empty", *LEASE)
        wait_until(server.entries, pause=0.05)  # one in flight, others held and waiting for their turn
        zombie.send_signal(signal.SIGSTOP)
        work(machine, queue, server, *LEASE)
        before = server.computed()
        zombie.send_signal(signal.SIGCONT)
        assert end(zombie) == 0
        results = get(machine, queue, 5)
        assert {result["status_code"] for result in results.values()} == {200}
        assert results_are(machine, queue)() == 0, "no second result"
        assert server.computed() == before


def test_async_result_destruction(machine: Machine, tmp_path: Path, queue: str) -> None:
    """An answer that comes while the worker drains is stored, and so is one that comes with its end."""
    with model_server(tmp_path, SLOW) as server:
        put(machine, queue, [message(number) for number in range(40)])
        worker = start(machine, queue, server, "--concurrency", 8, "--drain-timeout", 60, *LONG_LEASE)
        wait_until(server.computed, pause=0.05)
        worker.send_signal(signal.SIGTERM)
        assert end(worker) == 0
        assert results_are(machine, queue)() == sum(server.computed().values())


def test_terminal_overwrite(machine: Machine, tmp_path: Path, queue: str) -> None:
    """A worker that comes late with its answer changes nothing of the result that is there."""
    with model_server(tmp_path, Scenario(latency=Latency(seconds=1))) as server:
        put(machine, queue, [message(1)])
        look = depth_of(machine, queue)
        first = start(machine, queue, server, "--until-empty", *LEASE)
        wait_until(lambda: look().claimed == 1, pause=0.05)
        first.send_signal(signal.SIGSTOP)
        work(machine, queue, server, *LEASE)
        first.send_signal(signal.SIGCONT)
        assert end(first) == 0
        assert get(machine, queue, 1)["m1"]["status_code"] == 200
        assert results_are(machine, queue)() == 0


def test_worker_crash_strands_job(machine: Machine, tmp_path: Path, queue: str) -> None:
    """What a killed worker held is delivered again after its lease."""
    with model_server(tmp_path, Scenario(faults=[Fault(kind="stall", times=3)])) as server:
        put(machine, queue, [message(number) for number in range(3)])
        worker = start(machine, queue, server, *LEASE)
        wait_until(server.entries, pause=0.05)
        kill(worker)
        server.restart(Scenario())
        work(machine, queue, server, *LEASE)
        assert {result["status_code"] for result in get(machine, queue, 3).values()} == {200}


def test_cancel_reverted(machine: Machine, tmp_path: Path, queue: str) -> None:
    """A message that waits to be tried again is cancelled, and is not tried again."""
    busy = Fault(kind="refuse", refusal=Refusal(status=429, retry_after=5), text="busy")
    with model_server(tmp_path, Scenario(faults=[busy])) as server:
        put(machine, queue, [message(1, text="busy", seconds=600)])
        worker = start(machine, queue, server, "--until-empty")
        wait_until(server.entries, pause=0.05)
        assert machine.run("dispatch", "--queue", queue, "--cancel", "m1").returncode == 0
        assert end(worker) == 0
        assert get(machine, queue, 1)["m1"]["error_code"] == "CANCELLED"
        assert digest_of("busy") not in server.computed()


def test_duplicate_execution(machine: Machine, tmp_path: Path, queue: str) -> None:
    """The same message, put by two producers while it is in flight, is one."""
    with model_server(tmp_path, SLOW) as server:
        twice = [message(number) for number in range(10)]
        put(machine, queue, twice)
        worker = start(machine, queue, server, "--until-empty", *LONG_LEASE)
        wait_until(server.entries, pause=0.02)
        put(machine, queue, twice)
        assert end(worker) == 0
        work(machine, queue, server)
        get(machine, queue, 10)
        assert results_are(machine, queue)() == 0
        assert set(server.computed().values()) == {1}


def test_cancel_racing_completion(machine: Machine, tmp_path: Path, queue: str) -> None:
    """Cancelled while answers come, each message has one end: one or the other."""
    with model_server(tmp_path, Scenario(latency=Latency(slots=2, seconds=0.3))) as server:
        put(machine, queue, [message(number) for number in range(16)])
        worker = start(machine, queue, server, "--until-empty", *LONG_LEASE)
        wait_until(server.computed, pause=0.02)
        for number in (0, 5, 10, 15):
            assert machine.run("dispatch", "--queue", queue, "--cancel", f"m{number}").returncode == 0
        assert end(worker) == 0
        results = get(machine, queue, 16)
        assert results_are(machine, queue)() == 0
        ends = {result.get("error_code", result.get("status_code")) for result in results.values()}
        assert ends <= {200, "CANCELLED"}


def test_recovery_crash_loop(machine: Machine, tmp_path: Path) -> None:
    """Workers that die one after the other at the same place use up no message."""
    with model_server(tmp_path, STALLED) as server:
        put(machine, "local:asked", [message(1, text="never"), message(2, text="never too")])
        for deaths in range(1, 4):
            worker = start(machine, "local:asked", server, "--lease-seconds", 1)
            wait_until(lambda deaths=deaths: len(server.entries()) >= deaths, pause=0.05)
            kill(worker)
        server.restart(Scenario())
        work(machine, "local:asked", server, "--lease-seconds", 1)
        assert {result["status_code"] for result in get(machine, "local:asked", 2).values()} == {200}


def test_replicas_execute_once(machine: Machine, tmp_path: Path, queue: str) -> None:
    """Three workers on one queue make one call a message."""
    with model_server(tmp_path, SLOW) as server:
        put(machine, queue, [message(number) for number in range(60)])
        workers = [start(machine, queue, server, "--until-empty", *LONG_LEASE) for _ in range(3)]
        assert [end(worker) for worker in workers] == [0, 0, 0]
        get(machine, queue, 60)
        assert set(server.computed().values()) == {1}


def test_four_requests_cost_six_calls(machine: Machine, tmp_path: Path, queue: str) -> None:
    """Killed with two of four results stored, and two calls in flight, these two are made again and no other."""
    stalled = Scenario(faults=[Fault(kind="stall", text="slow", times=2)])
    with model_server(tmp_path, stalled) as server:
        put(machine, queue, [message(1), message(2), message(3, text="slow 3"), message(4, text="slow 4")])
        unread = results_are(machine, queue)
        worker = start(machine, queue, server, "--concurrency", 4, *LEASE)
        wait_until(lambda: unread() == 2 and len(server.entries()) == 4, pause=0.05)
        kill(worker)
        work(machine, queue, server, *LEASE)
        results = machine.run("dispatch", "--queue", queue, "--get", 4).stdout.splitlines()
        assert sorted(json.loads(line)["id"] for line in results) == ["m1", "m2", "m3", "m4"]
        assert len(server.entries()) == 6
