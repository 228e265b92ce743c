"""Delta tables: only the rows of the current version, pinned in the plan; new versions as new input."""

import datetime
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from batch_assets.errors import ConfigurationError, SourceError, StorageError
from batch_assets.sharding.changes import compare_source
from batch_assets.sharding.manifest import prepare_input
from batch_assets.sharding.plan_files import read_plan
from batch_assets.sharding.planner import plan_generation
from batch_assets.sharding.reading import read_rows, read_shard
from batch_assets.storage import open_storage
from batch_assets_tests.sharding.planning import Planned, plan, settings_of
from batch_assets_tests.sources.tables.delta import append, commit, delete_by_vector, rows


def live(table: Path) -> list[str]:
    return sorted(deltalake.DeltaTable(table).to_pyarrow_table().column("id").to_pylist())


def ids(planned: Planned) -> list[str]:
    return sorted(planned.ids())


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "table"


def test_only_the_rows_of_the_current_version(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 10))
    append(table, rows(10, 20))
    handle = deltalake.DeltaTable(table)
    handle.delete("id = 'k5'")
    handle.update(updates={"text": "'new'"}, predicate="id = 'k7'")
    planned = plan(table, tmp_path / "root", {"records": 6}, id_column="id")
    assert ids(planned) == live(table)
    assert planned.texts().count("new") == 1 and "text 7" not in planned.texts()
    assert planned.summary.format == "delta"
    assert planned.summary.table is not None and planned.summary.table.version == "3"
    assert planned.summary.left_out == ["2 Parquet files that are not part of the table's version 3"]


def test_the_format_may_be_named(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 3))
    assert ids(plan(table, tmp_path / "root", id_column="id", format="delta")) == ["k0", "k1", "k2"]
    with pytest.raises(
        ConfigurationError, match=r"parquet: .* is a Delta table, whose files are not to be read one"
    ):
        plan(table, tmp_path / "other", id_column="id", format="parquet")
    (plain := tmp_path / "plain").mkdir()
    with pytest.raises(
        ConfigurationError, match=r"source.format: delta: .*plain is not a Delta table's folder"
    ):
        plan(plain, tmp_path / "another", format="delta")


def test_partition_columns_with_the_types_of_the_table(table: Path, tmp_path: Path) -> None:
    day = datetime.date(2024, 1, 2)
    odd = "a b/c=:%é"
    append(table, rows(0, 2, dt=day, n=7, odd=odd), partition_by=["dt", "n", "odd"])
    nulls = {"dt": pa.array([None], pa.date32()), "n": pa.array([8]), "odd": pa.array([None], pa.string())}
    more = rows(2, 3)
    for name, values in nulls.items():
        more = more.append_column(name, values)
    append(table, more)
    planned = plan(table, tmp_path / "root", id_column="id")
    found = {
        name: dict(zip(planned.ids(), values, strict=True)) for name, values in planned.columns().items()
    }
    assert {name: str(values["k0"]) for name, values in found.items()} == {
        "id": "k0", "text": "text 0", "dt": "2024-01-02", "n": "7", "odd": odd,
    }  # fmt: skip
    assert [found[name]["k2"] for name in ("dt", "n", "odd")] == [None, 8, None]
    assert planned.summary.columns["n"] == "int64"
    template = plan(table, tmp_path / "template", id_column="id", text_template="{n} {odd}: {text}")
    assert f"7 {odd}: text 0" in template.texts()
    assert ids(plan(table, tmp_path / "by_column", id_column="odd"))[:2] == [odd, odd]
    assert set(plan(table, tmp_path / "some", columns=["n"]).summary.columns) == {"n"}


def test_rows_deleted_by_a_vector_are_no_records(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 10, dt="a b"), partition_by=["dt"])
    delete_by_vector(table, [0, 4, 5, 9])
    planned = plan(table, tmp_path / "root", {"records": 4}, id_column="id", min_records=3)
    assert planned.ids() == ["k1", "k2", "k3", "k6", "k7", "k8"]
    assert [row for _, row in planned.rows()] == [1, 2, 3, 6, 7, 8]  # physical rows of the file
    assert [shard.records for shard in planned.shards] == [3, 3]
    assert prepare_input(planned.settings, planned.shards[0], planned.summary, root=planned.root).valid == 3
    file = planned.shards[1].segments[0].path
    wanted = {(file, 6), (file, 9)}
    assert read_rows(planned.settings, planned.shards[1], wanted) == {(file, 6): (None, "text 6")}


def test_a_limit_ends_within_a_file_with_deleted_rows(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 10))
    delete_by_vector(table, [0, 4])
    assert plan(table, tmp_path / "root", id_column="id", limit=4).ids() == ["k1", "k2", "k3", "k5"]
    assert plan(table, tmp_path / "root", id_column="id").ids() == ["k6", "k7", "k8", "k9"]


def test_what_is_planned_is_read_without_the_log(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 10, dt="x"), partition_by=["dt"])
    delete_by_vector(table, [3])
    planned = plan(table, tmp_path / "root", id_column="id")
    shutil.rmtree(table / "_delta_log")
    assert planned.ids() == [f"k{n}" for n in range(10) if n != 3]
    assert planned.columns()["dt"] == ["x"] * 9


def test_an_append_is_planned_as_a_generation(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 4))
    plan(table, tmp_path / "root", id_column="id")
    append(table, rows(4, 6))
    again = plan(table, tmp_path / "root", id_column="id")
    assert again.ids() == ["k4", "k5"]
    assert again.summary.table is not None and again.summary.table.version == "1"
    assert not plan_generation(again.settings, again.root).changes


@pytest.mark.parametrize("how", ["rewritten", "vector"])
def test_a_version_that_takes_rows_away_waits_for_replace(table: Path, tmp_path: Path, how: str) -> None:
    append(table, rows(0, 4))
    [file] = [path.name for path in table.glob("*.parquet")]
    append(table, rows(4, 8))
    first = plan(table, tmp_path / "root", {"records": 2}, id_column="id")
    if how == "rewritten":
        deltalake.DeltaTable(table).delete("id = 'k1'")
    else:
        delete_by_vector(table, [1])
    append(table, rows(8, 10)) if how == "rewritten" else None
    waiting = plan_generation(first.settings, first.root)
    assert waiting.waits and not waiting.changes
    assert waiting.table_version == ("3" if how == "rewritten" else "2")
    assert (waiting.removed or waiting.touched) == [file]
    assert ids(first) == [f"k{n}" for n in range(8)]  # as planned
    news = compare_source(first.settings, lambda *_: versions(first), "delta")
    assert news.new == [] and (news.removed or news.touched) == [file]
    replaced = plan(table, tmp_path / "root", {"records": 2}, id_column="id", replace=True)
    kept = [shard for shard in first.shards if shard.key not in replaced.summary.superseded]
    found = replaced.ids() + [name for shard in kept for r in first.read(shard) for name in r.record_ids]
    expected = {f"k{n}" for n in range(10 if how == "rewritten" else 8)} - {"k1"}
    assert sorted(found) == sorted(expected)
    assert not plan_generation(first.settings, first.root).changes


def versions(planned: Planned) -> dict[str, str]:
    return {file.path: file.version for file in planned.summary.files}


def test_the_sensor_sees_appended_files(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 4))
    first = plan(table, tmp_path / "root", id_column="id")
    assert compare_source(first.settings, lambda *_: versions(first), "delta").new == []
    append(table, rows(4, 6))
    assert len(compare_source(first.settings, lambda *_: versions(first), "delta").new) == 1


def test_a_root_that_read_the_files_one_by_one_is_taken_over(table: Path, tmp_path: Path) -> None:
    """Versions before this one did so: old and deleted rows are planned there."""
    append(table, rows(0, 4))
    log = table / "_delta_log"
    log.rename(tmp_path / "log")
    before = plan(table, tmp_path / "root", id_column="id")
    (tmp_path / "log").rename(log)
    deltalake.DeltaTable(table).delete("id = 'k1'")
    news = compare_source(before.settings, lambda *_: versions(before), "parquet")
    assert news.new == [] and len(news.removed) == 1
    assert plan_generation(before.settings, before.root).waits
    replaced = plan(table, tmp_path / "root", id_column="id", replace=True)
    assert replaced.ids() == ["k0", "k2", "k3"] and replaced.summary.superseded == ["g0001-00000"]


def test_a_table_without_rows_has_nothing_to_embed(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 4))
    deltalake.DeltaTable(table).delete()
    with pytest.raises(SourceError, match="hold no records"):
        plan(table, tmp_path / "root", id_column="id")


def test_a_table_that_has_lost_its_log_is_never_read_file_by_file(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 4))
    first = plan(table, tmp_path / "root", id_column="id")
    shutil.rmtree(table / "_delta_log")
    with pytest.raises(SourceError, match="is planned as a Delta table, and has no log now"):
        plan(table, tmp_path / "root", id_column="id")
    with pytest.raises(ConfigurationError, match="is not a Delta table's folder"):
        compare_source(first.settings, lambda *_: versions(first), "delta")


def test_a_live_file_that_is_gone_is_named(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 4))
    [file] = table.glob("*.parquet")
    file.unlink()
    with pytest.raises(
        SourceError, match=f"version 0 of the table consists of 1 files, and {file.name} is not there"
    ):
        plan(table, tmp_path / "root", id_column="id")


@pytest.mark.parametrize("feature", ["typeWidening", "madeUp"])
def test_what_no_reader_here_knows_is_refused(table: Path, tmp_path: Path, feature: str) -> None:
    append(table, rows(0, 4))
    commit(table, features=[feature])
    with pytest.raises((ConfigurationError, SourceError), match=f"{feature}.*export its rows"):
        plan(table, tmp_path / "root", id_column="id")


def test_column_mapping_is_refused(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 4))
    log = table / "_delta_log" / f"{0:020}.json"
    log.write_text(
        log.read_text().replace('"configuration":{}', '"configuration":{"delta.columnMapping.mode":"name"}')
    )
    with pytest.raises((ConfigurationError, SourceError), match=r"(?i)column ?mapping.*export its rows"):
        plan(table, tmp_path / "root", id_column="id")


def test_a_broken_log_is_refused_with_the_words_of_the_library(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 4))
    (table / "_delta_log" / f"{0:020}.json").write_text("no JSON")
    with pytest.raises(SourceError, match=r"deltalake cannot read this Delta table .*; export its rows"):
        plan(table, tmp_path / "root", id_column="id")


def test_without_the_library_the_folder_is_refused(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(table, rows(0, 4))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "deltalake" else found(name)
    )
    with pytest.raises(ConfigurationError, match=r"is a Delta table.*pip install 'batch-assets\[delta\]'"):
        plan(table, tmp_path / "root", id_column="id")


def test_a_damaged_file_of_the_plan_is_named(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 4))
    planned = plan(table, tmp_path / "root", id_column="id")
    [file] = (tmp_path / "root" / "plan").glob("table-*.parquet")
    moved = tmp_path / "moved"
    os.rename(tmp_path / "root", moved)  # no process has read it under this name
    (moved / "plan" / file.name).write_bytes(b"PAR1")
    summary, shards = read_plan(open_storage(str(moved)), 1)
    with pytest.raises(StorageError, match=r"is missing or damaged.*restore it"):
        list(read_shard(settings_of(table, moved), shards[0], summary, open_storage(str(moved))))
    assert planned.shards == shards


def test_image_columns_of_a_table(table: Path, tmp_path: Path) -> None:
    pixels: dict[str, Any] = {"id": ["a", "b"], "image": [b"1", b"2"]}
    append(table, pa.table(pixels))
    deltalake.DeltaTable(table).delete("id = 'a'")
    planned = plan(table, tmp_path / "root", id_column="id", image_column="image")
    assert [image for records in planned.records() for image in records.images or []] == [b"2"]


def test_a_folder_that_the_library_takes_for_another_is_refused(table: Path, tmp_path: Path) -> None:
    append(table, rows(0, 4))
    for name in ("a b#ü", "a%41"):
        shutil.copytree(table, tmp_path / name)
    assert ids(plan(tmp_path / "a b#ü", tmp_path / "root", id_column="id")) == ["k0", "k1", "k2", "k3"]
    with pytest.raises(ConfigurationError, match=r"with '%' in its path.*rename the folder"):
        plan(tmp_path / "a%41", tmp_path / "other")
