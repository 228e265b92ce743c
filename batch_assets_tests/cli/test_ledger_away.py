"""`batch-assets run` with its ledger on a PostgreSQL server that is killed while it works."""

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets import crash_points
from batch_assets.control.ownership import adhoc_name
from batch_assets.ledger import patience
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets_tests.command import (
    Machine,
    accounting_of,
    make_machine,
    published,
    some_records,
    write_records,
)
from batch_assets_tests.forking import CommandProcess, run_command
from batch_assets_tests.ledger.postgres import Server, running_server
from batch_assets_tests.waiting import wait_until

RECORDS, PER_SHARD = 120, 12
LEDGER = r"ledger postgresql://ledger@/postgres\?host=\S+: "
WAITS = re.compile(LEDGER + r"[^;\t]+; waiting for it, at most 300 seconds")
IS_BACK = re.compile(LEDGER + "answers again")
OTHERS = re.compile(r"home: .*|check \w+: passed: .*|adhoc_\w+: [\d,]+ of 120 records.*")


@pytest.fixture
def server() -> Iterator[Server]:
    """A PostgreSQL server of a test's own, to be killed."""
    with running_server() as server:
        yield server


@pytest.fixture
def machine(server: Server, tmp_path: Path) -> Machine:
    return make_machine(tmp_path / "home", BATCH_ASSETS_LEDGER_URL=server.url)


@pytest.fixture
def command(tmp_path: Path, tiny_model: Path) -> list[str]:
    write_records(tmp_path / "in.jsonl", some_records(RECORDS))
    return [
        "run", "--input", f"{tmp_path}/in.jsonl", "--output", f"{tmp_path}/out", "--model", str(tiny_model),
        "--id-column", "id", "--dtype", "float32", "--shard-records", str(PER_SHARD),
    ]  # fmt: skip


def run_held() -> object:
    """Run the command, and have it stand still at the moments named in the environment, while a file says so."""
    folder, moments = Path(os.environ["HELD_IN"]), os.environ["HELD_AT"].split()
    times = Counter[str]()

    def hold(point: str) -> None:
        times[point] += 1
        moment = f"{point}-{times[point]}"
        if moment in moments:
            (folder / moment).touch()
            wait_until(lambda: not (folder / moment).exists(), f"held at {moment}")

    crash_points.watchers.append(hold)
    return run_command()


def run_held_and_impatient() -> object:
    patience.PATIENCE_SECONDS = 0.5
    return run_held()


def kill_at(server: Server, process: CommandProcess, folder: Path, moment: str) -> None:
    """Kill the server as the command comes to this moment, and let it go on."""
    process.wait_until((folder / moment).exists, "a moment that has not come")
    server.end(signal.SIGKILL)
    (folder / moment).unlink()


def held(machine: Machine, folder: Path, *moments: str) -> dict[str, str]:
    return {**machine.environment, "HELD_IN": str(folder), "HELD_AT": " ".join(moments)}


def waits(process: CommandProcess) -> int:
    return process.told().count("waiting for it")


def assert_every_record_is_published_once(root: Path) -> None:
    expected = [record["id"] for record in some_records(RECORDS)]
    assert published(root)["record_id"].to_list() == expected


def attempts(server: Server, root: Path) -> list[int]:
    """Those of the shards, by the ledger, in which all of them have ended well."""
    ledger = Ledger.open(server.url)
    rows = ledger.shards(adhoc_name(str(root)))
    ledger.dispose()
    assert {(row.state, row.holder) for row in rows} == {(State.COLLECTED, None)}
    return [row.attempt for row in rows]


def test_a_ledger_that_is_killed_again_and_again_is_waited_for(
    server: Server, machine: Machine, command: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "out"
    moments = ["plan-written-1", "marker-committed-1", "marker-committed-5", "version-started-1"]
    process = CommandProcess(command, held(machine, tmp_path, *moments), run_held)
    for number, moment in enumerate(moments, start=1):
        kill_at(server, process, tmp_path, moment)
        process.wait_until(lambda number=number: waits(process) == number, process.told)
        server.start()
    stdout, stderr = process.communicate()

    assert process.returncode == 0, stderr
    assert stdout.splitlines()[-1] == "accounting: planned=120 embedded=120 rejected=0 failed=0"
    assert_every_record_is_published_once(root)
    assert attempts(server, root) == [1] * (RECORDS // PER_SHARD)
    markers = [json.loads(marker.read_text()) for marker in root.glob("shards/*/shard.json")]
    assert {marker["attempt"] for marker in markers} == {1}
    told = [line for line in stderr.splitlines() if not OTHERS.fullmatch(line)]
    expected = [WAITS, IS_BACK] * len(moments)
    assert len(told) == len(expected), stderr
    assert all(pattern.fullmatch(line) for pattern, line in zip(expected, told, strict=True)), stderr


def test_a_ledger_that_stays_away_ends_the_command_in_one_sentence_and_it_goes_on(
    server: Server, machine: Machine, command: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "out"
    moment = "marker-committed-2"
    process = CommandProcess(command, held(machine, tmp_path, moment), run_held_and_impatient)
    kill_at(server, process, tmp_path, moment)
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (1, "")
    waited, error = [line for line in stderr.splitlines() if not OTHERS.fullmatch(line)]
    assert re.fullmatch(LEDGER + r"[^;\t]+; waiting for it, at most 0 seconds", waited)
    assert re.fullmatch(
        "error: " + LEDGER + r"[^;\t]+, for \d+ seconds; start it again, .* same command", error
    )

    server.start()
    result = machine.run(*command)
    assert result.returncode == 0, result.stderr
    assert accounting_of(result) == (RECORDS, RECORDS, 0, 0)
    assert_every_record_is_published_once(root)
    assert set(attempts(server, root)) <= {1, 2}


def test_ctrl_c_waits_for_no_ledger(
    server: Server, machine: Machine, command: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "out"
    moment = "marker-committed-1"
    process = CommandProcess(command, held(machine, tmp_path, moment), run_held)
    kill_at(server, process, tmp_path, moment)
    process.wait_until(lambda: waits(process) == 1, process.told)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    told = [line for line in stderr.splitlines() if not OTHERS.fullmatch(line)]
    assert len(told) == 2 and WAITS.fullmatch(told[0]) and "the same command goes on" in told[1].lower(), (
        stderr
    )

    server.start()
    result = machine.run(*command)
    assert result.returncode == 0, result.stderr
    assert_every_record_is_published_once(root)
    assert set(attempts(server, root)) <= {1, 2}
