"""The verbs beside `run`: plan, status, verify, retry, stop, search, on one pipeline declared in YAML."""

import json
import shutil
from pathlib import Path

import pytest

from batch_assets_tests.command import Machine, accounting_of, make_machine, some_records, write_records

DEFS = """
type: batch_assets.components.EmbeddingPipeline
attributes:
  source: {{uri: {source}, id_column: id}}
  model: {{id: {model}, dtype: float32}}
  shards: {{records: 20}}
  output: {{root: {root}}}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Machine, Path]:
    """A machine with the pipeline `verbs`, which has run once."""
    folder = tmp_path_factory.mktemp("verbs")
    write_records(folder / "in.jsonl", some_records(50))
    file = folder / "defs" / "verbs" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(DEFS.format(source=folder / "in.jsonl", model=tiny_model, root=folder / "out"))
    machine = make_machine(folder / "home", BATCH_ASSETS_DEFS=str(folder / "defs"))
    result = machine.run("run", "verbs")
    assert result.returncode == 0, result.stderr
    return machine, folder


def test_status_in_json_has_exactly_its_fields(done: tuple[Machine, Path]) -> None:
    machine, folder = done
    found = json.loads(machine.run("status", "verbs", "--json").stdout)
    assert found == {
        "pipeline": "verbs",
        "generation": 1,
        "shards": {"collected": 3},
        "records": {"planned": 50, "embedded": 50, "rejected": 0, "failed": 0},
        "slots": {"used": 0, "limit": 1},
        "cost_usd": 0.0,
        "expected_usd": 0.0,
        "eta_seconds": 0.0,
        "version": (folder / "out" / "merged" / "CURRENT").read_text().strip(),
    }
    assert "3 collected" in machine.run("status", folder / "out").stdout


def test_a_shards_story_is_told_in_words_and_as_a_list(done: tuple[Machine, Path]) -> None:
    machine, _ = done
    told = machine.run("status", "verbs", "g0001-00001")
    assert "shard g0001-00001 of verbs: collected, 20 records" in told.stdout
    assert "collected: 20 embedded, 0 rejected, 0 failed" in told.stdout
    found = json.loads(machine.run("status", "verbs", "g0001-00001", "--json").stdout)
    assert [(one["event"], one["attempt"]) for one in found] == [("began", 1), ("collected", 1)]
    assert set(found[0]) == {"at", "attempt", "event", "reason", "decision", "fence", "job"}
    unknown = machine.run("status", "verbs", "g0009-00000")
    assert unknown.returncode == 2
    assert "g0009-00000: no such shard in pipeline verbs" in unknown.stderr


def test_plan_estimates_and_a_dry_run_writes_nothing(done: tuple[Machine, Path], tmp_path: Path) -> None:
    machine, folder = done
    found = json.loads(machine.run("plan", "verbs", "--json").stdout)
    assert set(found) == {"records", "shards", "tokens", "seconds", "usd", "usd_on_demand"}
    assert (found["records"], found["shards"], found["usd"]) == (50, 3, 0.0)
    assert found["tokens"] > 100
    dry = machine.run(
        "plan",
        "--input",
        folder / "in.jsonl",
        "--output",
        tmp_path / "dry",
        "--model",
        folder / "none",
        "--dry-run",
    )
    assert dry.returncode == 2
    model = json.loads((folder / "out" / "pipeline.json").read_text())["configuration"]["model"]["id"]
    dry = machine.run(
        "plan", "--input", folder / "in.jsonl", "--output", tmp_path / "dry", "--model", model, "--dry-run"
    )
    assert dry.returncode == 0, dry.stderr
    assert not (tmp_path / "dry").exists()


def test_verify_finds_a_flipped_byte(done: tuple[Machine, Path], tmp_path: Path) -> None:
    machine, folder = done
    assert accounting_of(machine.run("verify", "verbs")) == (50, 50, 0, 0)
    copy = tmp_path / "out"
    shutil.copytree(folder / "out", copy)
    part = next(copy.glob("shards/g0001-00001/embeddings-*.parquet"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    damaged = machine.run("verify", copy)
    assert damaged.returncode == 1
    assert "g0001-00001" in damaged.stderr


def test_search_finds_a_record_by_its_own_text(done: tuple[Machine, Path]) -> None:
    machine, _ = done
    text = some_records(50)[17]["text"]
    found = machine.run("search", "verbs", text, "-k", 5)
    assert found.returncode == 0, found.stderr
    assert "record-17" in found.stdout


def test_stop_and_retry(done: tuple[Machine, Path]) -> None:
    machine, folder = done
    again = machine.run("retry", "verbs", "g0001-00001", "--recompute")
    assert "1 shards are ready" in again.stdout, again.stderr
    assert "1 waiting shards stopped" in machine.run("stop", "verbs").stdout
    assert json.loads(machine.run("status", "verbs", "--json").stdout)["shards"] == {
        "collected": 2,
        "stopped": 1,
    }
    result = machine.run("run", "verbs")
    assert result.returncode == 0, result.stderr
    marker = json.loads((folder / "out" / "shards" / "g0001-00001" / "shard.json").read_text())
    assert marker["fence"] == 2
    assert machine.run("retry", "verbs", "g0009-00000").returncode == 2


@pytest.mark.parametrize("arguments", [["status", "nobody"], ["verify", "no/such/root"], ["run"], ["fly"]])
def test_what_does_not_exist_is_refused(done: tuple[Machine, Path], arguments: list[str]) -> None:
    machine, _ = done
    result = machine.run(*arguments)
    assert result.returncode == 2
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr


def test_save_writes_only_what_has_been_checked(done: tuple[Machine, Path], tmp_path: Path) -> None:
    machine, folder = done
    adhoc = ["plan", "--output", tmp_path / "out", "--save", "saved", "--max_failed", "0.1"]
    assert machine.run(*adhoc, "--input", folder / "none.jsonl").returncode == 2
    assert machine.run(*adhoc, "--input", folder / "in.jsonl", "--dry-run").returncode == 0
    assert [path.name for path in (folder / "defs").iterdir()] == ["verbs"]
