"""Tables and partitions as source, from the plan to the output."""

from pathlib import Path

import deltalake
import polars as pl
import pytest

from batch_assets.control.housekeeping import read_source_news
from batch_assets.control.merging import merge_shards, publish_merge
from batch_assets.control.pipeline import open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preview import preview_plan
from batch_assets.errors import ConfigurationError
from batch_assets.merge.verification import verify
from batch_assets.storage import open_storage
from batch_assets_tests.command import published, some_records, write_records
from batch_assets_tests.control.builders import embed_all, make_settings, open_ledger, run
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.sources.tables.delta import append, rows


def test_new_versions_of_a_table_are_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "table"
    append(table, rows(0, 7, dt="2024-01-01"), partition_by=["dt"])
    settings = make_settings(tmp_path, source={"uri": str(table), "id_column": "id"})
    ledger, host = open_ledger(tmp_path), FakeHost()
    run(settings, ledger, host)
    append(table, rows(7, 9, dt="2024-01-02"))
    assert len(read_source_news(settings, ledger, None).new) == 1
    run(settings, ledger, host)
    news = read_source_news(settings, ledger, None)
    assert news.new == []
    with monkeypatch.context() as patched:  # the files are not asked for again while the version is the same
        patched.setattr("batch_assets.sharding.changes.list_source", None)
        assert read_source_news(settings, ledger, news.cursor).new == []
    assert published(tmp_path / "out")["record_id"].to_list() == [f"k{n}" for n in range(9)]

    deltalake.DeltaTable(table).delete("id = 'k3'")
    append(table, rows(9, 10, dt="2024-01-03"))
    for _ in range(2):  # what waits is seen again and again, and asks for no plan
        news = read_source_news(settings, ledger, None)
        assert news.new == [] and len(news.removed) == 1
        planned = plan_source(open_pipeline(settings, ledger, host.executor(settings)))
        assert planned.new_keys == []
        [note] = [note for note in planned.notes if "waits" in note]
        assert "version 3 of the table waits: it no longer holds 1 planned files (dt=2024-01-01/part-" in note
        assert "`plan --replace` takes it over" in note
    run(settings, ledger, host)
    assert published(tmp_path / "out")["record_id"].to_list() == [f"k{n}" for n in range(9)]

    replaced = plan_source(open_pipeline(settings, ledger, host.executor(settings)), replace=True)
    assert "read as a table: its version 3, by its own log" in replaced.notes
    embed_all(settings, ledger, host)
    pipeline = open_pipeline(settings, ledger, host.executor(settings))
    publish_merge(pipeline, merge_shards(pipeline))
    found = published(tmp_path / "out").sort("record_id")
    assert found["record_id"].to_list() == sorted(f"k{n}" for n in range(10) if n != 3)
    assert [str(day) for day in found["dt"]] == ["2024-01-01"] * 6 + ["2024-01-02"] * 2 + ["2024-01-03"]
    assert verify(open_storage(settings.output.root)).ok
    news = read_source_news(settings, ledger, None)
    assert (news.new, news.touched, news.removed) == ([], [], [])


def test_a_raised_limit_is_seen_though_the_version_is_the_same(tmp_path: Path) -> None:
    append(tmp_path / "table", rows(0, 3))
    append(tmp_path / "table", rows(3, 6))
    source = {"uri": str(tmp_path / "table"), "id_column": "id"}
    limited = make_settings(tmp_path, source={**source, "limit": 3})
    ledger, host = open_ledger(tmp_path), FakeHost()
    plan_source(open_pipeline(limited, ledger, host.executor(limited)))
    news = read_source_news(limited, ledger, None)
    assert news.new == [] and news.cursor == read_source_news(limited, ledger, news.cursor).cursor
    raised = make_settings(tmp_path, source={**source, "limit": 6})
    assert len(read_source_news(raised, ledger, news.cursor).new) == 1


def test_a_preview_of_a_table_writes_nothing_under_the_root(tmp_path: Path) -> None:
    append(tmp_path / "table", rows(0, 7))
    settings = make_settings(tmp_path, source={"uri": str(tmp_path / "table"), "id_column": "id"})
    executor = FakeHost().executor(settings)
    preview = preview_plan(settings, executor, open_ledger(tmp_path), open_storage(str(tmp_path / "spool")))
    assert sum(preview.shards) == 7 and "text 3" in preview.sample
    assert not (tmp_path / "out").exists()


def test_a_plan_that_is_refused_leaves_nothing_of_a_table(tmp_path: Path) -> None:
    append(tmp_path / "table", rows(0, 7))
    settings = make_settings(tmp_path, source={"uri": str(tmp_path / "table")}, merge_by="nowhere")
    with pytest.raises(ConfigurationError, match="nowhere"):
        plan_source(open_pipeline(settings, open_ledger(tmp_path), FakeHost().executor(settings)))
    assert not (tmp_path / "out").exists()


def test_a_partition_in_the_names_of_folders_groups_the_output(tmp_path: Path) -> None:
    records = some_records(6)
    write_records(tmp_path / "in" / "lang=de" / "a.jsonl", records[:4])
    write_records(tmp_path / "in" / "lang=en" / "a.jsonl", records[4:])
    settings = make_settings(tmp_path, source={"uri": f"{tmp_path}/in", "id_column": "id"}, merge_by="lang")
    pipeline = run(settings, open_ledger(tmp_path), FakeHost())
    version = pipeline.storage.read("merged/CURRENT").decode().strip()
    data = tmp_path / "out" / "merged" / version / "data"
    assert {folder.name: pl.read_parquet(folder).height for folder in data.iterdir()} == {"de": 4, "en": 2}
