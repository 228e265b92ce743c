"""An output root that was removed and made anew is another one, whoever knew the one before."""

import shutil
from pathlib import Path

import orjson
import pytest

from batch_assets.control.pipeline import open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.ledger.ledger import Ledger
from batch_assets_tests.command import published, some_records, write_records
from batch_assets_tests.control.builders import PER_SHARD, make_settings, open_ledger, run, write_input
from batch_assets_tests.fakes import FakeHost


def texts(folder: Path) -> list[str]:
    return published(folder / "out")["text"].to_list()


@pytest.mark.parametrize("turns", [["a"], ["a", "b"], ["a", "b", "a"]])
@pytest.mark.parametrize("again", [["b", "a"], ["a", "b"]])
def test_a_ledger_that_knew_the_old_root_publishes_the_new_one(
    tmp_path: Path, turns: list[str], again: list[str]
) -> None:
    """Epochs begin anew with the root, and the same numbers must not be taken for the same root."""
    settings, ledgers = make_settings(tmp_path), {name: open_ledger(tmp_path, name) for name in "ab"}
    write_input(tmp_path, 2)
    for name in turns:
        run(settings, ledgers[name], FakeHost())
    shutil.rmtree(tmp_path / "out")
    records = some_records(4 * PER_SHARD)[2 * PER_SHARD :]  # as many shards, of the same size
    write_records(tmp_path / "in.jsonl", records)
    for name in again:
        run(settings, ledgers[name], FakeHost())
        assert texts(tmp_path) == [record["text"] for record in records]


def test_where_pipeline_json_was_lost_no_two_ledgers_share_an_epoch(tmp_path: Path) -> None:
    settings, ledgers = make_settings(tmp_path), [open_ledger(tmp_path, name) for name in "abc"]
    write_input(tmp_path, 2)
    for ledger in ledgers[:2]:
        run(settings, ledger, FakeHost())
    ledgers[1].recompute("texts", ["g0001-00000"])
    run(settings, ledgers[1], FakeHost())
    (tmp_path / "out" / "pipeline.json").unlink()
    epochs = [epoch_of(ledger) for ledger in ledgers[:2]]
    for ledger in ledgers:
        run(settings, ledger, FakeHost())
        epochs.append(epoch_of(ledger))
    assert len(set(epochs)) == len(epochs)


def epoch_of(ledger: Ledger) -> int:
    row = ledger.pipeline("texts")
    assert row is not None
    return row.epoch


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_first_plan_that_fails_under_a_removed_root_leaves_nothing(tmp_path: Path, name: str) -> None:
    write_input(tmp_path, 2)
    ledgers = {name: open_ledger(tmp_path, name) for name in "ab"}
    run(make_settings(tmp_path), ledgers["a"], FakeHost())
    shutil.rmtree(tmp_path / "out")
    wrong = make_settings(tmp_path, source={"uri": f"{tmp_path}/nothing.jsonl"})
    for _ in range(2):
        with pytest.raises(SourceError):
            plan_source(open_pipeline(wrong, ledgers[name], FakeHost().executor(wrong)))
        assert not (tmp_path / "out").exists()
    run(make_settings(tmp_path), ledgers[name], FakeHost())
    assert len(texts(tmp_path)) == 2 * PER_SHARD


@pytest.mark.parametrize("ledger_of_second", ["a", "b"])
def test_of_two_first_planners_of_different_sources_one_is_refused(
    tmp_path: Path, ledger_of_second: str
) -> None:
    for name in ("one", "two"):
        write_records(tmp_path / f"{name}.jsonl", some_records(PER_SHARD))
    pipelines = []
    for name, ledger in (("one", "a"), ("two", ledger_of_second)):
        settings = make_settings(tmp_path, source={"uri": f"{tmp_path}/{name}.jsonl"})
        pipelines.append(
            open_pipeline(settings, open_ledger(tmp_path, ledger), FakeHost().executor(settings))
        )
    plan_source(pipelines[1])
    with pytest.raises(ConfigurationError, match="was filled from"):
        plan_source(pipelines[0])
    owner = orjson.loads((tmp_path / "out" / "pipeline.json").read_bytes())
    assert owner["source"] == [f"{tmp_path}/two.jsonl"]
    assert [path.name for path in (tmp_path / "out" / "plan").iterdir() if path.suffix == ".parquet"] == [
        "g0001.parquet"
    ]


def test_a_source_that_may_be_added_may_be_first_too(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_records(tmp_path / f"{name}.jsonl", some_records(PER_SHARD))
    pipelines = []
    for name in ("one", "two"):
        settings = make_settings(tmp_path, source={"uri": f"{tmp_path}/{name}.jsonl"})
        executor, ledger = FakeHost().executor(settings), open_ledger(tmp_path, name)
        pipelines.append(open_pipeline(settings, ledger, executor, add_source=True))
    for pipeline in pipelines:
        plan_source(pipeline)
    owner = orjson.loads((tmp_path / "out" / "pipeline.json").read_bytes())
    assert owner["source"] == [f"{tmp_path}/one.jsonl", f"{tmp_path}/two.jsonl"]


def test_a_root_that_lost_its_pipeline_json_is_the_same_root(tmp_path: Path) -> None:
    settings, ledger = make_settings(tmp_path), open_ledger(tmp_path, "a")
    write_input(tmp_path, 2)
    run(settings, ledger, FakeHost())
    before = orjson.loads((tmp_path / "out" / "pipeline.json").read_bytes())["deployment"]
    (tmp_path / "out" / "pipeline.json").unlink()
    run(settings, ledger, FakeHost())
    assert orjson.loads((tmp_path / "out" / "pipeline.json").read_bytes())["deployment"] == before
    shutil.rmtree(tmp_path / "out")
    run(settings, ledger, FakeHost())
    assert orjson.loads((tmp_path / "out" / "pipeline.json").read_bytes())["deployment"] != before
