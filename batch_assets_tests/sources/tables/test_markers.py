"""Tables are told by their metadata, wherever they lie, and never read file by file."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.sources.listing import list_source
from batch_assets.sources.tables.markers import _above, table_at
from batch_assets.storage import open_storage
from batch_assets_tests.sources.tables.delta import append, rows

MARKERS = {
    "Delta table": "_delta_log/00000000000000000000.json",
    "Iceberg table": "metadata/v1.metadata.json",
    "Hudi table": ".hoodie/hoodie.properties",
    "Paimon table": "snapshot/snapshot-1",
    "Lance dataset": "_versions/1.manifest",
}


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": ["a"]}), path)
    else:
        path.write_text("{}")


@pytest.mark.parametrize("marker", [name for name in MARKERS if name not in ("Delta table", "Iceberg table")])
def test_tables_of_formats_that_nothing_reads_are_refused(tmp_path: Path, marker: str) -> None:
    put(tmp_path / "t" / MARKERS[marker])
    put(tmp_path / "t" / "data" / "a.parquet")
    with pytest.raises(ConfigurationError, match=f"is a {marker}, which is not read; export its rows"):
        list_source(str(tmp_path / "t"), None)


@pytest.mark.parametrize("marker", MARKERS)
def test_a_table_in_a_subfolder_is_named(tmp_path: Path, marker: str) -> None:
    put(tmp_path / "lake" / "deep" / "t" / MARKERS[marker])
    put(tmp_path / "lake" / "deep" / "t" / "a.parquet")
    put(tmp_path / "lake" / "plain.parquet")
    with pytest.raises(
        ConfigurationError, match=f"deep/t: an? {marker}.*name one table's folder as source.uri"
    ):
        list_source(str(tmp_path / "lake"), None)


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("inside", ["a.parquet", "dt=1/lang=de/a.parquet", "dt=1/lang=de", "dt=1"])
def test_what_lies_inside_a_table_is_refused(tmp_path: Path, marker: str, inside: str) -> None:
    put(tmp_path / "t" / MARKERS[marker])
    put(tmp_path / "t" / "dt=1" / "lang=de" / "a.parquet")
    put(tmp_path / "t" / "a.parquet")
    table = tmp_path / "t"
    with pytest.raises(
        ConfigurationError, match=f"lies inside {table}, an? {marker}.*name the table's own folder"
    ):
        list_source(str(table / inside), None)


def test_an_output_root_inside_the_source_may_hold_tables(tmp_path: Path) -> None:
    put(tmp_path / "plain.parquet")
    put(tmp_path / "out" / "vectors.lance" / "_versions" / "1.manifest")
    assert [info.path for info in list_source(str(tmp_path), None, [str(tmp_path / "out")]).files] == [
        "plain.parquet"
    ]


def test_names_that_only_look_like_it(tmp_path: Path) -> None:
    put(tmp_path / "metadata" / "a.parquet")
    put(tmp_path / "snapshot" / "b.parquet")
    put(tmp_path / "_versions" / "notes.txt")
    assert len(list_source(str(tmp_path), None).files) == 2


def test_a_plain_folder_beside_a_table(tmp_path: Path) -> None:
    append(tmp_path / "table", rows(0, 1))
    put(tmp_path / "plain" / "a.parquet")
    assert len(list_source(str(tmp_path / "plain"), None).files) == 1


def test_a_long_history_hides_no_table(tmp_path: Path) -> None:
    put(tmp_path / "t" / "data" / "a.parquet")
    (tmp_path / "t" / "metadata").mkdir()
    for number in range(1_100):
        (tmp_path / "t" / "metadata" / f"snap-{number}.avro").touch()
    put(tmp_path / "t" / "metadata" / "v7.metadata.json")
    with pytest.raises(ConfigurationError, match=r"lies inside .*an Iceberg table"):
        list_source(str(tmp_path / "t" / "data"), None)
    assert table_at(open_storage(str(tmp_path / "t"))) == "iceberg"


def test_what_lies_above_is_looked_at_up_to_the_root() -> None:
    assert list(_above("/data/dt=1")) == ["/data"]
    assert list(_above("s3://bucket/table/dt=1")) == ["s3://bucket/table", "s3://bucket"]


def test_a_table_that_is_not_read_anyway_refuses_nothing(tmp_path: Path) -> None:
    put(tmp_path / ".trash" / "t" / MARKERS["Delta table"])
    put(tmp_path / "a.parquet")
    assert [info.path for info in list_source(str(tmp_path), None).files] == ["a.parquet"]
