"""The command where a neighbour in the defs folder is broken: it works, and says who is left out."""

from pathlib import Path

import pytest
import yaml

from batch_assets.components.attributes import COMPONENT_TYPE
from batch_assets_tests.builders import make_tiny_model
from batch_assets_tests.command import Machine, accounting_of, make_machine, some_records, write_records


def declare(folder: Path, name: str, /, **more: object) -> Path:
    """A pipeline of few records with a tiny model."""
    attributes = {
        "source": {"uri": str(folder / "in.jsonl"), "id_column": "id"},
        "model": {"id": str(folder / "model")},
        "output": {"root": str(folder / "out" / name)},
        **more,
    }
    file = folder / "defs" / name / "defs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"type": COMPONENT_TYPE, "attributes": attributes}))
    return file


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    write_records(tmp_path / "in.jsonl", some_records(5))
    make_tiny_model(tmp_path / "model")
    return make_machine(tmp_path / "home", BATCH_ASSETS_DEFS=str(tmp_path / "defs"))


def test_the_others_run_and_what_is_broken_can_still_be_seen_and_stopped(
    machine: Machine, tmp_path: Path
) -> None:
    declare(tmp_path, "good")
    file = declare(tmp_path, "broken")
    assert machine.run("run", "broken").returncode == 0
    declare(tmp_path, "broken", shards={"records": "many"})
    reason = f"{file}: shards.records: 'many' cannot be used"
    for verb in ("run", "verify", "status", "stop", "retry"):
        done = machine.run(verb, "good")
        assert done.returncode == 0, done.stderr
        assert f"warning: left out: {reason}" in done.stderr
        if verb in ("run", "verify"):
            assert accounting_of(done) == (5, 5, 0, 0)
    for verb in ("run", "plan", "retry", "cleanup"):
        done = machine.run(verb, "broken")
        assert done.returncode == 2
        assert f"error: {reason}" in done.stderr
    for verb in ("status", "verify", "stop"):
        done = machine.run(verb, "broken")
        assert done.returncode == 0, done.stderr
        assert f"warning: {reason}" in done.stderr and "goes by what the ledger ran last" in done.stderr
    assert "(known: good)" in machine.run("run").stderr


def test_of_namesakes_and_what_reads_them_the_reason_is_told_and_the_others_go_on(
    machine: Machine, tmp_path: Path
) -> None:
    declare(tmp_path, "good")
    one, two = declare(tmp_path, "one", name="same"), declare(tmp_path, "two", name="same", sourse=1)
    over = declare(tmp_path, "over", source={"pipeline": "same"})
    named = f"{one}: name: 'same' is also the name of the pipeline in {two}, so that none of them is loaded"
    above = f"{over}: source.pipeline: 'same' cannot be loaded: "
    done = machine.run("run", "good")
    assert done.returncode == 0 and accounting_of(done) == (5, 5, 0, 0)
    assert f"warning: left out: {named}" in done.stderr and f"warning: left out: {above}" in done.stderr
    for arguments, told in ((["same"], named), (["over"], above), (["-f", str(over)], above)):
        done = machine.run("run", *arguments)
        assert done.returncode == 2, done.stderr
        assert f"{told}" in done.stderr.split("error: ")[1] and str(two) in done.stderr
    two.write_text("name: good\nattributes: [")  # not YAML any more, so that its name is a guess
    done = machine.run("plan", "good")
    assert done.returncode == 0 and f"warning: left out: {two}: cannot be read as YAML" in done.stderr
    # What it reads can be told again, and has no plan yet.
    assert "or `batch-assets plan same`, makes it" in machine.run("plan", "over").stderr
    done = machine.run("plan", "two")
    assert done.returncode == 2 and "(pipeline 'two' may be declared there)" in done.stderr


def test_of_two_with_one_root_the_one_that_has_it_goes_on(machine: Machine, tmp_path: Path) -> None:
    declare(tmp_path, "good")
    assert machine.run("run", "good").returncode == 0
    before = sorted((tmp_path / "out").rglob("*"))
    # Before the other one in every order.
    declare(tmp_path, "another", output={"root": str(tmp_path / "out" / "good") + "/"})
    refused = machine.run("run", "another")
    assert refused.returncode == 2
    assert "belongs to pipeline 'good', not to 'another'" in refused.stderr
    assert sorted((tmp_path / "out").rglob("*")) == before
    for verb in ("run", "status", "stop", "verify"):
        done = machine.run(verb, "good")
        assert done.returncode == 0, done.stderr
        assert "is also that of pipeline 'another'" in done.stderr
