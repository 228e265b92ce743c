"""Vectors that are not what the model's own library makes of the records: exit codes, and what the command says."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from batch_assets_tests.builders import make_light_model
from batch_assets_tests.command import (
    Machine,
    accounting_of,
    make_machine,
    published,
    some_records,
    write_records,
)

ROWS = 5


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Input of one shard, and a model that gives a batch's vectors in another order."""
    write_records(tmp_path / "in.jsonl", some_records(ROWS))
    file = make_light_model(tmp_path / "model") / "model.py"
    file.write_text(file.read_text().replace("for seed in seeds]", "for seed in seeds][::-1]"))
    return make_machine(tmp_path / "home")


def run(machine: Machine, folder: Path, **fields: Any) -> subprocess.CompletedProcess[str]:
    attributes = {
        "source": {"uri": str(folder / "in.jsonl")},
        "model": {"id": str(folder / "model"), "trust_remote_code": True},
        "output": {"root": str(folder / "out")},
        **fields,
    }
    content = {"type": "batch_assets.components.EmbeddingPipeline", "attributes": attributes}
    (folder / "texts.yaml").write_text(yaml.safe_dump(content).replace("'off'", "off"))
    return machine.run("run", "-f", folder / "texts.yaml", "--trust-remote-code")


def test_nothing_is_published_by_default(machine: Machine, tmp_path: Path) -> None:
    result = run(machine, tmp_path)
    assert result.returncode == 1, result.stderr
    assert not (tmp_path / "out" / "merged" / "CURRENT").exists()
    assert accounting_of(result) == (ROWS, ROWS, 0, 0)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: v000001-")
    assert "is not published: parity FAILED: lowest cosine " in last
    assert "`parity: warn`" in last


def test_under_warn_it_is_published_and_said(machine: Machine, tmp_path: Path) -> None:
    result = run(machine, tmp_path, parity="warn")
    assert result.returncode == 3, result.stderr
    assert len(published(tmp_path / "out")) == ROWS
    assert accounting_of(result) == (ROWS, ROWS, 0, 0)
    assert " is published all the same: check parity: lowest cosine " in result.stderr.splitlines()[-1]
    shown = machine.run("status", tmp_path / "out")
    assert "parity FAILED: lowest cosine " in " ".join(shown.stdout.split())
    verified = machine.run("verify", tmp_path / "out")
    assert verified.returncode == 0
    assert "when it was merged, parity FAILED: lowest cosine " in verified.stderr


def test_under_off_nothing_is_compared(machine: Machine, tmp_path: Path) -> None:
    result = run(machine, tmp_path, parity="off")
    assert result.returncode == 0, result.stderr
    assert "parity" not in result.stderr
