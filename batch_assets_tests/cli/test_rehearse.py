"""`batch-assets rehearse`: a pipeline of one's own, without an account."""

import re
from pathlib import Path

import pytest
import yaml

from batch_assets.cli.rehearsing import make_folder
from batch_assets.components.attributes import load_file
from batch_assets_tests.command import (
    Machine,
    accounting_of,
    make_machine,
    published,
    some_records,
    write_records,
)

COMPONENT = "batch_assets.components.EmbeddingPipeline"


def pipeline(folder: Path, executor: dict[str, object]) -> Path:
    write_records(folder / "in.jsonl", some_records(700))
    attributes = {
        "name": "mine",
        "source": {"uri": str(folder / "in.jsonl"), "id_column": "id", "columns": ["number"]},
        "executor": executor,
        "output": {"root": str(folder / "real-output")},
    }
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({"type": COMPONENT, "attributes": attributes}))
    return file


def bedrock() -> dict[str, object]:
    return {
        "type": "bedrock",
        "role_arn": "arn:aws:iam::123456789012:role/mine",
        "staging": "s3://my-own-bucket/staging/",
        "model_id": "amazon.titan-embed-text-v2:0",
    }


def test_a_sample_goes_through_and_nothing_real_is_touched(tmp_path: Path) -> None:
    machine = make_machine(tmp_path / "home")
    file = pipeline(tmp_path, bedrock())
    result = machine.run("rehearse", "-f", file, "--sample", 600, "--scenario", "calm", "--speed", 1000)
    assert result.returncode == 0, result.stderr
    books = result.stdout[result.stdout.index("The service's own books") :]
    assert re.search(r"records paid for +600,", books)
    before_books = result.stdout[: result.stdout.index("The service's own books")]
    result.stdout = before_books
    assert accounting_of(result) == (600, 600, 0, 0)
    rows = published(machine.home / "rehearsals" / "mine" / "1" / "output")
    assert rows["number"].to_list() == list(range(600))
    assert not (tmp_path / "real-output").exists()


def test_an_executor_in_place_needs_no_rehearsal(tmp_path: Path) -> None:
    machine: Machine = make_machine(tmp_path / "home")
    result = machine.run("rehearse", "-f", pipeline(tmp_path, {"type": "gpu"}))
    assert result.returncode == 2
    assert "costs nothing" in result.stderr


def test_a_pipeline_of_requests_is_rehearsed_with_its_sealed_windows(tmp_path: Path) -> None:
    machine = make_machine(tmp_path / "home")
    file = pipeline(tmp_path, bedrock())
    content = yaml.safe_load(file.read_text())
    content["attributes"]["source"] = {"requests": {}}
    file.write_text(yaml.safe_dump(content))
    arguments = ("rehearse", "-f", file, "--sample", 110, "--scenario", "calm", "--speed", 1000)
    refused = machine.run(*arguments)
    assert refused.returncode != 0
    assert f"{tmp_path}/real-output/requests: no window of requests is sealed yet" in refused.stderr
    for day in (1, 2):
        own = {"tenant": "operator", "arrival_time": f"2026-12-0{day}T00:00:00.000000+00:00"}
        window = tmp_path / f"real-output/requests/2026/12/0{day}/00/00/2026120{day}T0000-0123456789ab.jsonl"
        window.parent.mkdir(parents=True)
        rows = [{"job_id": f"{day}-{row}", **own, "text": f"text {row} of day {day}"} for row in range(60)]
        write_records(window, rows)
    before = {path: path.read_bytes() for path in (tmp_path / "real-output").rglob("*") if path.is_file()}
    result = machine.run(*arguments)
    assert result.returncode == 0, result.stderr
    rows = published(machine.home / "rehearsals/mine/2/output")
    wanted = [f"{day}-{row}" for day in (1, 2) for row in range(60)][:110]
    assert rows["record_id"].to_list() == wanted
    after = {path: path.read_bytes() for path in (tmp_path / "real-output").rglob("*") if path.is_file()}
    assert after == before


def test_a_rehearsal_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    [settings] = load_file(pipeline(tmp_path, bedrock()))
    mine = [
        tmp_path / "rehearsals" / "mine" / name for name in ("home/precious", "7/output/precious", "notes")
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    folders = [make_folder(settings).folder for _ in range(2)]
    assert [folder.name for folder in folders] == ["8", "9"]
    assert [path.read_text() for path in mine] == ["mine"] * 3
