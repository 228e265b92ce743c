"""`batch-assets run` with a model server, as people start it; the run and the server are killed."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import yaml

from batch_assets_tests.command import Machine, accounting_of, make_machine, published, write_records
from batch_assets_tests.forking import run_command
from batch_assets_tests.gateway.computing import vectors_of
from batch_assets_tests.gateway.model_servers import RunningServer, model_server
from batch_assets_tests.gateway.scenario import Fault, Latency, Scenario
from batch_assets_tests.waiting import wait_until

RECORDS, PER_SHARD = 600, 100
SLOW = Scenario(latency=Latency(slots=4, seconds=0.05))
TEXTS = {f"r{number}": f"the text number {number} ." for number in range(RECORDS)}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return make_machine(tmp_path / "home")


def pipeline(folder: Path, server: RunningServer, **executor: Any) -> Path:
    """A pipeline's YAML, whose records the server embeds four at a time."""
    if not (folder / "in.jsonl").exists():
        write_records(folder / "in.jsonl", [{"id": key, "text": text} for key, text in TEXTS.items()])
    attributes = {
        "source": {"uri": str(folder / "in.jsonl"), "id_column": "id"},
        "model": {"id": "test-model"},
        "executor": {"type": "gateway", "base_url": server.url, "inputs_per_call": 4, **executor},
        "shards": {"records": PER_SHARD},
        "output": {"root": str(folder / "out")},
    }
    file = folder / "served.yaml"
    content = {"type": "batch_assets.components.EmbeddingPipeline", "attributes": attributes}
    file.write_text(yaml.safe_dump(content))
    return file


def check_published(folder: Path) -> None:
    """Every record is there once, with the vector of its own text."""
    rows = published(folder / "out")
    assert sorted(rows["record_id"]) == sorted(TEXTS)
    wanted = vectors_of([TEXTS[key] for key in rows["record_id"]], 384)
    assert np.allclose(rows["embedding"].to_numpy(), wanted, atol=1e-5)


def when_computed(server: RunningServer, calls: int) -> Callable[[], bool]:
    return lambda: len(server.entries()) >= 4 * calls


def test_a_dataset_is_embedded_and_searched_through_a_server(machine: Machine, tmp_path: Path) -> None:
    with model_server(tmp_path) as server:
        file = pipeline(tmp_path, server)
        ended = machine.run("run", "-f", file)
        assert ended.returncode == 0, ended.stderr
        found = machine.run("search", tmp_path / "out", TEXTS["r17"], "-k", 1)
    assert accounting_of(ended) == (RECORDS, RECORDS, 0, 0)
    check_published(tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("1.000  r17")


def test_a_run_that_is_killed_costs_the_shards_at_hand_only(machine: Machine, tmp_path: Path) -> None:
    with model_server(tmp_path, SLOW) as server:
        file = pipeline(tmp_path, server)
        run = machine.start("run", "-f", file)
        wait_until((tmp_path / "out/shards/g0001-00001/shard.json").exists, "no shard is committed")
        run.send_signal(signal.SIGKILL)
        run.communicate()
        ended = machine.run("run", "-f", file)
        computed = server.computed()
    assert ended.returncode == 0, ended.stderr
    assert accounting_of(ended) == (RECORDS, RECORDS, 0, 0)
    check_published(tmp_path)
    # Two shards are under way at a time; a small call goes out before the first run.
    assert sum(computed.values()) <= RECORDS + 2 * PER_SHARD + 2


def test_a_server_that_crashes_is_waited_for(machine: Machine, tmp_path: Path) -> None:
    """And costs the calls that it was at."""
    crash = Fault(kind="crash", calls=(40, 1_000_000), times=1)
    with model_server(tmp_path, SLOW.model_copy(update={"faults": [crash]})) as server:
        file = pipeline(tmp_path, server)
        run = machine.start("run", "-f", file)
        server.wait_ended()
        server.start(SLOW)
        stdout, stderr = run.communicate()
        computed = server.computed()
    assert run.returncode == 0, stderr
    assert stdout.strip().endswith(f"planned={RECORDS} embedded={RECORDS} rejected=0 failed=0")
    check_published(tmp_path)
    assert sum(computed.values()) <= RECORDS + 400


@pytest.mark.parametrize(
    ("scenario", "executor", "told"),
    [
        (Scenario(api_key="another key"), {"api_key_env": "SERVED_KEY"}, "invalid_api_key"),
        (Scenario(model="another-model"), {}, "model_not_found"),
        (Scenario(), {"path": "/v1/vectors"}, "status 404"),
        (Scenario(), {"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
    ],
    ids=["key", "model", "path", "variable"],
)
def test_a_server_that_takes_no_call_is_refused_before_anything_is_written(
    tmp_path: Path, scenario: Scenario, executor: dict[str, Any], told: str
) -> None:
    machine = make_machine(tmp_path / "home", SERVED_KEY="secret key 123")
    with model_server(tmp_path, scenario) as server:
        ended = machine.run("run", "-f", pipeline(tmp_path, server, **executor))
    assert ended.returncode == 2
    assert told in ended.stderr
    assert "secret key" not in ended.stdout + ended.stderr
    assert not (tmp_path / "out").exists()


PRICES = {"input": 1000.0}
"""A text of five words costs half a cent, and is bounded by its bytes: about three cents."""


def money(machine: Machine, folder: Path) -> dict[str, Any]:
    told = json.loads(machine.run("status", folder / "out", "--json").stdout)
    return {name: told[name] for name in ("cost_usd", "records")}


def test_a_budget_is_not_passed_and_a_raised_one_goes_on(machine: Machine, tmp_path: Path) -> None:
    with model_server(tmp_path) as server:
        # A shard is bounded by three dollars, and costs half a one: the fifth is too much also where each has ended
        # before the next begins.
        ended = machine.run("run", "-f", pipeline(tmp_path, server, prices=PRICES, budget_usd=4.9))
        computed, spent = sum(server.computed().values()), money(machine, tmp_path)
        assert ended.returncode == 4, ended.stderr
        assert "budget reached" in ended.stderr and "budget_usd is 4.90" in ended.stderr
        # What was computed is committed and counted: no shard is cut off in the middle.
        embedded = spent["records"]["embedded"]
        assert 0 < embedded < RECORDS and embedded % PER_SHARD == 0
        assert computed == embedded + 1  # and the small call before
        assert spent["cost_usd"] == pytest.approx(embedded * 5 / 1000)
        ended = machine.run("run", "-f", pipeline(tmp_path, server, prices=PRICES, budget_usd=20.0))
    assert ended.returncode == 0, ended.stderr
    check_published(tmp_path)
    assert money(machine, tmp_path)["cost_usd"] == pytest.approx(RECORDS * 5 / 1000)


def test_what_a_killed_run_may_have_paid_counts_against_the_budget(machine: Machine, tmp_path: Path) -> None:
    stalls = Scenario(faults=[Fault(kind="stall", calls=(20, 1_000_000))])
    with model_server(tmp_path, stalls) as server:
        file = pipeline(tmp_path, server, prices=PRICES, budget_usd=100.0)
        run = machine.start("run", "-f", file)
        wait_until(when_computed(server, 10), "nothing is computed")
        run.send_signal(signal.SIGKILL)
        run.communicate()
        server.restart(Scenario())
        ended = machine.run("run", "-f", file)
    assert ended.returncode == 0, ended.stderr
    check_published(tmp_path)
    # One shard or two were at hand, each with some three dollars reserved.
    assert 2 < money(machine, tmp_path)["cost_usd"] - RECORDS * 5 / 1000 < 2 * 5


def test_the_dry_run_tells_calls_tokens_and_dollars(machine: Machine, tmp_path: Path) -> None:
    with model_server(tmp_path) as server:
        file = pipeline(tmp_path, server, prices=PRICES)
        told = machine.run("plan", "-f", file, "--dry-run")
        counted = json.loads(machine.run("plan", "-f", file, "--dry-run", "--json").stdout)
        assert server.computed() == {}
    assert told.returncode == 0, told.stderr
    assert "calls     150" in told.stdout
    characters = sum(map(len, TEXTS.values()))
    assert counted["tokens"] == pytest.approx(characters / 4, rel=0.05)
    assert counted["usd"] == pytest.approx(counted["tokens"] / 1000)
    assert counted["seconds"] is None


def test_a_budget_for_answers_needs_a_bound_of_each(machine: Machine, tmp_path: Path) -> None:
    with model_server(tmp_path) as server:
        file = pipeline(tmp_path, server, prices=PRICES, budget_usd=8.0)
        content = yaml.safe_load(file.read_text())
        content["attributes"]["task"] = "generate"
        file.write_text(yaml.safe_dump(content))
        ended = machine.run("run", "-f", file)
    assert ended.returncode == 2
    assert "put max_tokens" in ended.stderr


def run_with_signals_dropped() -> object:
    """The command where every handler of Ctrl-C is called in vain, as one of Dagster's is now and then."""
    set_handler = signal.signal

    def set_other_handler(number: int, handler: Any) -> Any:
        return set_handler(number, (lambda *_: None) if number == signal.SIGINT else handler)

    with mock.patch("signal.signal", set_other_handler):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return run_command()


@pytest.mark.parametrize("program", [run_command, run_with_signals_dropped], ids=["heard", "dropped"])
def test_an_interrupted_run_ends_soon_and_the_same_command_goes_on(
    machine: Machine, tmp_path: Path, program: Callable[[], object]
) -> None:
    stalls = Scenario(faults=[Fault(kind="stall", calls=(20, 1_000_000))])
    with model_server(tmp_path, stalls) as server:
        file = pipeline(tmp_path, server)
        run = machine.start("run", "-f", file, program=program)
        wait_until(when_computed(server, 10), "nothing is computed")
        run.send_signal(signal.SIGINT)
        _, stderr = run.communicate()
        assert run.returncode == 130, stderr
        server.restart(Scenario())
        ended = machine.run("run", "-f", file)
    assert ended.returncode == 0, ended.stderr
    check_published(tmp_path)
