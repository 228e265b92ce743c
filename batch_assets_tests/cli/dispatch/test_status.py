"""What the worker shows in a terminal, and says elsewhere."""

import json
from pathlib import Path

from batch_assets_tests.cli.dispatch.steps import message, put
from batch_assets_tests.command import Machine, make_machine
from batch_assets_tests.gateway.model_servers import RunningServer, model_server
from batch_assets_tests.gateway.scenario import Fault, Refusal, Scenario


def test_a_terminal_shows_each_queue_and_its_figures(tmp_path: Path) -> None:
    terminal = make_machine(tmp_path / "home", FORCE_COLOR="1", TERM="dumb", COLUMNS="120")
    faults = [
        Fault(kind="refuse", refusal=Refusal(status=429, retry_after=1), text="busy", times=1),
        Fault(kind="refuse", refusal=Refusal(status=400), text="wrong"),
    ]
    with model_server(tmp_path, Scenario(faults=faults)) as server:
        late = message("late", seconds=-5)
        put(
            terminal,
            "local:asked",
            [message("good"), message(1, text="busy"), message(2, text="wrong"), late, "no"],
        )
        done = terminal.run("dispatch", "--queue", "local:asked", "--endpoint", server.url, "--until-empty")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    shown = [line.split() for line in lines if line.startswith("asked ")]
    # Waiting, held, answered, failed (the dead letter, too), expired, tried again.
    assert shown[-1][1:7] == ["0", "0", "2", "2", "1", "1"]
    assert any(line.startswith("default: 0 calls in flight") for line in lines)
    assert "dead letters" in done.stderr and '{"time"' not in done.stderr, "people read it"


def test_elsewhere_it_says_one_json_object_a_line(machine: Machine, server: RunningServer) -> None:
    put(machine, "local:asked", ["no message"])
    done = machine.run("dispatch", "--queue", "local:asked", "--endpoint", server.url, "--until-empty")
    said = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [each["level"] for each in said] == ["warning"]
    assert "dead letters" in said[0]["message"]
    assert "waiting" not in done.stderr
