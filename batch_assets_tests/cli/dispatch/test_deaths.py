"""`batch-assets dispatch` while workers, model servers and queues are killed, and told to end: nothing is lost."""

import itertools
import os
import signal
from pathlib import Path

import pytest

from batch_assets import crash_points
from batch_assets.cli.app import run_command
from batch_assets_tests.cli.dispatch.steps import (
    LEASE,
    SLOW,
    STALLED,
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
from batch_assets_tests.gateway.model_servers import model_server
from batch_assets_tests.gateway.scenario import Scenario
from batch_assets_tests.waiting import wait_until


def test_a_killed_workers_messages_are_delivered_again(machine: Machine, tmp_path: Path, queue: str) -> None:
    with model_server(tmp_path, SLOW) as server:
        put(machine, queue, [message(number) for number in range(200)])
        unread = results_are(machine, queue)
        # Longer than any process stands still here: a claim that ran out would be a call made again.
        lease = ("--lease-seconds", "15")
        worker = machine.start(
            "dispatch", "--queue", queue, "--endpoint", server.url, "--concurrency", 8, *lease
        )
        wait_until(lambda: unread() >= 20, pause=0.05)
        worker.send_signal(signal.SIGKILL)
        end(worker)
        work(machine, queue, server, *lease)
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
