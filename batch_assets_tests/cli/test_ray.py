"""`batch-assets run` with Ray workers, as people start it."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batch_assets.control.ownership import adhoc_name
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets_tests.command import Machine, accounting_of, make_machine, published, write_records
from batch_assets_tests.forking import CommandProcess
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until

SHARDS, PER_SHARD = 3, 3_000


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return make_machine(tmp_path / "home", BATCH_ASSETS_LEDGER_URL=f"sqlite:///{tmp_path}/ledger.db")


def make_run(folder: Path, model: Path) -> tuple[list[object], list[dict[str, object]]]:
    """A command that wants the number of its workers, and the records of its input."""
    records: list[dict[str, object]] = [
        {"id": f"r{number}", "text": "read the file"} for number in range(SHARDS * PER_SHARD)
    ]
    write_records(folder / "in.jsonl", records)
    run: list[object] = [
        "run", "--input", folder / "in.jsonl", "--output", folder / "out", "--model", model,
        "--id-column", "id", "--dtype", "float32", "--shard-records", PER_SHARD, "--executor", "ray", "--num-workers",
    ]  # fmt: skip
    return run, records


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for child in subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split():
        found += [int(child), *descendants(int(child))]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def comm(pid: int) -> str:
    """The process's name as the kernel has it; "" for one that has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """The processes do nothing while the block runs; whatever becomes of it, none is left so."""
    try:
        for pid in pids:
            send(signal.SIGSTOP, pid)
        yield
    finally:
        for pid in pids:
            send(signal.SIGCONT, pid)


def send(number: signal.Signals, pid: int) -> None:
    """The signal to a process, which may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def held(ledger: Ledger, name: str) -> list[str]:
    """The shards that somebody alive has claimed."""
    rows = ledger.shards(name, states=[State.RUNNING])
    return [row.key for row in rows if ledger.is_held(name, row.key)]


def wait_for(what: str, condition: Callable[[], object], process: CommandProcess) -> None:
    def seen() -> object:
        assert process.poll() is None, process.communicate()
        return condition()

    wait_until(seen, what)


def start_until_at_work(machine: Machine, folder: Path, *run: object) -> tuple[CommandProcess, Ledger, str]:
    """The command, by now at a shard, its ledger, and the name of its pipeline."""
    process = machine.start(*run)
    ledger = Ledger.open(machine.environment["BATCH_ASSETS_LEDGER_URL"])
    name = adhoc_name(str(folder / "out"))
    wait_for("a shard at work", lambda: held(ledger, name), process)
    return process, ledger, name


def test_interrupted_then_gone_on_with(machine: Machine, tmp_path: Path, tiny_model: Path) -> None:
    run, records = make_run(tmp_path, tiny_model)
    process, ledger, name = start_until_at_work(machine, tmp_path, *run, 2)
    started = descendants(process.pid)
    assert len(started) > 2
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, told
    rows = ledger.shards(name)
    assert {(row.state, row.holder) for row in rows} <= {(State.READY, None), (State.COLLECTED, None)}
    assert {row.attempt for row in rows if row.state is State.READY} <= {0}, "an interruption cost an attempt"
    wait_until(lambda: not any(map(alive, started)), lambda: f"left behind: {list(filter(alive, started))}")

    result = machine.run(*run, 1)
    assert result.returncode == 0, result.stderr
    assert accounting_of(result) == (len(records), len(records), 0, 0)
    assert {row.attempt for row in ledger.shards(name)} == {1}
    assert "raylet" not in result.stdout + result.stderr
    assert published(tmp_path / "out")["record_id"].to_list() == [str(record["id"]) for record in records]


@pytest.mark.timeout(3600)  # two whole runs, each of which starts Ray
def test_a_control_store_that_dies_ends_the_command_in_words_and_it_goes_on(
    machine: Machine, tmp_path: Path, tiny_model: Path
) -> None:
    run, records = make_run(tmp_path, tiny_model)
    process, ledger, name = start_until_at_work(machine, tmp_path, *run, 2)
    started = descendants(process.pid)
    [store] = [pid for pid in started if comm(pid) == "gcs_server"]
    # Held up, since what has a worker already may well be done before anybody misses the store.
    with stopped([pid for pid in started if comm(pid).startswith("ray::")]):
        wait_for("a shard at work", lambda: held(ledger, name), process)
        os.kill(store, signal.SIGKILL)
        told = process.communicate()[1]
    assert process.returncode == 1, told
    assert "control store (GCS) on this machine has ended" in told and "the same command goes on" in told
    rows = ledger.shards(name)
    assert {(row.state, row.holder) for row in rows} <= {(State.READY, None), (State.COLLECTED, None)}
    assert {row.attempt for row in rows if row.state is State.READY} <= {0}
    wait_until(lambda: not any(map(alive, started)), lambda: f"left behind: {list(filter(alive, started))}")

    result = machine.run(*run, 1)
    assert result.returncode == 0, result.stderr
    assert accounting_of(result) == (len(records), len(records), 0, 0)
    assert {row.attempt for row in ledger.shards(name)} == {1}


@pytest.mark.timeout(3600)  # two whole runs, each of which starts Ray
def test_a_raylet_that_dies_leaves_no_command_waiting_and_it_goes_on(
    machine: Machine, tmp_path: Path, tiny_model: Path
) -> None:
    run, records = make_run(tmp_path, tiny_model)
    process, ledger, name = start_until_at_work(machine, tmp_path, *run, 2)
    started = descendants(process.pid)
    [raylet] = [pid for pid in started if comm(pid) == "raylet"]
    wait_for("a shard at work", lambda: held(ledger, name), process)
    os.kill(raylet, signal.SIGKILL)
    told = process.communicate()[1]
    # Ray ends a process that is at its object store in that very moment; from any other on, it is started anew.
    first = process.returncode
    assert first in (0, 1), told
    wait_until(lambda: not any(map(alive, started)), lambda: f"left behind: {list(filter(alive, started))}")

    result = machine.run(*run, 1)
    assert result.returncode == 0, result.stderr
    assert accounting_of(result) == (len(records), len(records), 0, 0)
    assert published(tmp_path / "out")["record_id"].to_list() == [str(record["id"]) for record in records]
    # A lost raylet costs no attempt, and one whose worker had committed just before is not tried again; a process that
    # Ray ends cannot give its claims back.
    assert {row.attempt for row in ledger.shards(name)} <= ({0, 1} if first == 0 else {0, 1, 2})


def test_a_cluster_that_is_not_there_is_named_and_nothing_written(tmp_path: Path, tiny_model: Path) -> None:
    machine = make_machine(tmp_path / "home", RAY_ADDRESS="ray://127.0.0.1:1")
    write_records(tmp_path / "in.jsonl", [{"text": "read"}])
    adhoc = ["--input", tmp_path / "in.jsonl", "--output", tmp_path / "out", "--model", tiny_model]
    refused = machine.run("run", *adhoc, "--executor", "ray")
    assert refused.returncode == 2, refused.stderr
    assert "no Ray answers at ray://127.0.0.1:1" in refused.stderr
    assert not (tmp_path / "out").exists()
