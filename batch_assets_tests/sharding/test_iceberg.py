"""Iceberg tables: only the rows of the current snapshot, pinned in the plan; new snapshots as new input."""

import datetime
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.manifest import DataFileContent
from pyiceberg.table import Table
from pyiceberg.types import StringType

from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.sharding.changes import compare_source
from batch_assets.sharding.planner import plan_generation
from batch_assets.sources.tables.reading import table_version
from batch_assets.storage import open_storage
from batch_assets_tests.sharding.planning import Planned, plan
from batch_assets_tests.sources.tables.delta import rows
from batch_assets_tests.sources.tables.iceberg import create, delete_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "table"


def table_of(folder: Path, data: pa.Table, *identity: str) -> Table:
    table = create(folder, data.schema, identity)
    table.append(data)
    return table


def ids(planned: Planned) -> list[str]:
    return sorted(planned.ids())


def test_only_the_rows_of_the_current_snapshot(folder: Path, tmp_path: Path) -> None:
    table = table_of(folder, rows(0, 10))
    table.append(rows(10, 20))
    table.delete("id = 'k5'")
    table.overwrite(
        rows(
            7,
            8,
        ).set_column(1, "text", pa.array(["new"])),
        "id = 'k7'",
    )
    planned = plan(folder, tmp_path / "root", {"records": 6}, id_column="id")
    assert ids(planned) == sorted(table.scan().to_arrow().column("id").to_pylist())
    assert planned.texts().count("new") == 1 and "text 7" not in planned.texts()
    snapshot = table.current_snapshot()
    assert planned.summary.table is not None and snapshot is not None
    assert (planned.summary.format, planned.summary.table.version) == ("iceberg", str(snapshot.snapshot_id))


def test_partition_columns_are_there_where_the_files_lack_them(folder: Path, tmp_path: Path) -> None:
    day = datetime.date(2024, 1, 2)
    table_of(folder, rows(0, 2, dt=day, n=7, odd="a b/c=%é"), "dt", "n", "odd")
    for file in folder.rglob("*.parquet"):  # as add_files takes over a folder of Hive's
        import pyarrow.parquet as pq

        pq.write_table(pq.read_table(file, partitioning=None).select(["id", "text"]), file)
    found = plan(folder, tmp_path / "root", id_column="id").columns()
    assert {name: [str(value) for value in values] for name, values in found.items()} == {
        "id": ["k0", "k1"], "text": ["text 0", "text 1"], "dt": ["2024-01-02"] * 2, "n": ["7"] * 2,
        "odd": ["a b/c=%é"] * 2,
    }  # fmt: skip


def test_deleted_rows_are_no_records(folder: Path, tmp_path: Path) -> None:
    table = table_of(folder, rows(0, 10))
    first = plan(folder, tmp_path / "root", {"records": 4}, id_column="id")
    delete_rows(table, [0, 4, 5])
    waiting = plan_generation(first.settings, first.root)
    assert waiting.waits and len(waiting.touched) == 1 and not waiting.changes
    assert ids(first) == [f"k{n}" for n in range(10)]
    replaced = plan(folder, tmp_path / "root", {"records": 4}, id_column="id", replace=True)
    assert replaced.ids() == ["k1", "k2", "k3", "k6", "k7", "k8", "k9"]
    assert [row for _, row in replaced.rows()] == [1, 2, 3, 6, 7, 8, 9]


def test_what_is_planned_is_read_without_the_metadata(folder: Path, tmp_path: Path) -> None:
    table = table_of(folder, rows(0, 4))
    delete_rows(table, [1])
    planned = plan(folder, tmp_path / "root", id_column="id")
    shutil.rmtree(folder / "metadata")
    assert planned.ids() == ["k0", "k2", "k3"]


def test_new_snapshots_are_new_input(folder: Path, tmp_path: Path) -> None:
    table = table_of(folder, rows(0, 4))
    first = plan(folder, tmp_path / "root", id_column="id")
    versions = {file.path: file.version for file in first.summary.files}
    assert compare_source(first.settings, lambda *_: versions, "iceberg").new == []
    table.append(rows(4, 6))
    assert len(compare_source(first.settings, lambda *_: versions, "iceberg").new) == 1
    assert plan(folder, tmp_path / "root", id_column="id").ids() == ["k4", "k5"]
    table.delete("id = 'k1'")
    assert plan_generation(first.settings, first.root).waits
    assert plan(folder, tmp_path / "root", id_column="id", replace=True).ids() == ["k0", "k2", "k3"]


def test_a_moved_table_is_read_where_it_is(folder: Path, tmp_path: Path) -> None:
    table_of(folder, rows(0, 4))
    shutil.move(folder, tmp_path / "moved")
    assert ids(plan(tmp_path / "moved", tmp_path / "root", id_column="id")) == ["k0", "k1", "k2", "k3"]


def test_a_dropped_column_is_none_of_the_records(folder: Path, tmp_path: Path) -> None:
    table = table_of(folder, rows(0, 2, secret="x"))
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("secret")
    planned = plan(folder, tmp_path / "root", id_column="id")
    assert planned.columns() == {"id": ["k0", "k1"], "text": ["text 0", "text 1"]}
    with pytest.raises(ConfigurationError, match="'secret' in no record"):
        plan(folder, tmp_path / "other", columns=["secret"])


@pytest.mark.parametrize("how", ["renamed", "added anew"])
def test_columns_that_files_name_otherwise_are_refused(folder: Path, tmp_path: Path, how: str) -> None:
    table = table_of(folder, rows(0, 2, other="x"))
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.rename_column("other", "name") if how == "renamed" else update.delete_column("other")
    if how == "added anew":
        with table.update_schema() as update:
            update.add_column("other", StringType())
    with pytest.raises(
        ConfigurationError, match=r"was renamed, moved, or dropped and added anew.*export its rows"
    ):
        plan(folder, tmp_path / "root", id_column="id")


def test_equality_deletes_are_refused(folder: Path, tmp_path: Path) -> None:
    table = table_of(folder, rows(0, 4))
    delete_rows(table, [1], DataFileContent.EQUALITY_DELETES)
    with pytest.raises((ConfigurationError, SourceError), match=r"(?i)equality.*export its rows"):
        plan(folder, tmp_path / "root", id_column="id")


def test_the_current_metadata_by_its_hint(folder: Path, tmp_path: Path) -> None:
    table = table_of(folder, rows(0, 4))
    table.append(rows(4, 6))
    for number, path in enumerate(sorted((folder / "metadata").glob("*.metadata.json")), 1):
        path.rename(folder / "metadata" / f"v{number}.metadata.json")
    last = number
    (folder / "metadata" / "version-hint.text").write_text("2")  # and later ones are there
    assert len(plan(folder, tmp_path / "root").texts()) == 6
    (folder / "metadata" / f"v{last}.metadata.json").rename(folder / "metadata" / "kept")
    assert len(plan(folder, tmp_path / "other").texts()) == 4
    (folder / "metadata" / "version-hint.text").write_text("77")
    with pytest.raises(
        SourceError, match=r"version-hint.text: names '77', and there is no such metadata file"
    ):
        plan(folder, tmp_path / "another")


def test_two_metadata_files_of_one_number_are_refused(folder: Path, tmp_path: Path) -> None:
    table_of(folder, rows(0, 4))
    last = max((folder / "metadata").glob("*.metadata.json"))
    shutil.copy(
        last, folder / "metadata" / f"{last.name[:5]}-11111111-1111-1111-1111-111111111111.metadata.json"
    )
    with pytest.raises(SourceError, match=r"have one number.*only the table's catalog knows"):
        plan(folder, tmp_path / "root")


def test_what_is_no_metadata_is_refused_with_the_words_of_the_library(folder: Path, tmp_path: Path) -> None:
    table_of(folder, rows(0, 4))
    max((folder / "metadata").glob("*.metadata.json")).write_text("{}")
    with pytest.raises(
        SourceError, match=r"pyiceberg cannot read this Iceberg table by metadata/0.*; export its rows"
    ):
        plan(folder, tmp_path / "root")


def test_without_the_library_the_folder_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_of(folder, rows(0, 4))
    found: Any = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "pyiceberg" else found(name)
    )
    with pytest.raises(
        ConfigurationError, match=r"is an Iceberg table.*pip install 'batch-assets\[iceberg\]'"
    ):
        plan(folder, tmp_path / "root", id_column="id")


def test_a_table_of_no_snapshot_has_nothing_to_embed(folder: Path, tmp_path: Path) -> None:
    create(folder, rows(0, 1).schema)
    with pytest.raises(SourceError, match="hold no records"):
        plan(folder, tmp_path / "root")


def test_a_table_that_is_gone_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no Iceberg metadata file any more"):
        table_version("iceberg", open_storage(str(tmp_path)))
