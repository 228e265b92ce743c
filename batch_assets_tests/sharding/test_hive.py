"""Partition columns in the names of folders: columns of the records, whatever the format."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import BatchAssetsError
from batch_assets.sharding.plan_files import read_summary
from batch_assets.sharding.planner import plan_generation
from batch_assets.sharding.reading import read_shard
from batch_assets_tests.sharding.planning import plan, write_lines

FORMATS = ("parquet", "jsonl", "jsonl.gz", "csv")


def put(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(records), path)
    elif name.endswith(".csv"):
        names = list(records[0])
        write_lines(path, [",".join(names), *(",".join(str(record[n]) for n in names) for record in records)])
    else:
        write_lines(path, [json.dumps(record) for record in records])
        if name.endswith(".gz"):
            import gzip

            path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize("extension", FORMATS)
def test_folders_are_columns_in_every_format(tmp_path: Path, extension: str) -> None:
    source = tmp_path / "in"
    put(source / "dt=2024-01-01" / "n=07" / "lang=a%2Fb" / f"p.{extension}", [{"text": "a"}, {"text": "b"}])
    put(
        source / "dt=2024-01-02" / "n=8" / "lang=__HIVE_DEFAULT_PARTITION__" / f"p.{extension}",
        [{"text": "c"}],
    )
    planned = plan(source, tmp_path / "root")
    found = planned.columns()
    assert {name: [None if v is None else str(v) for v in values] for name, values in found.items()} == {
        "text": ["a", "b", "c"],
        "dt": ["2024-01-01", "2024-01-01", "2024-01-02"],
        "n": ["7", "7", "8"],
        "lang": ["a/b", "a/b", None],
    }
    assert found["n"] == [7, 7, 8] and planned.summary.columns["n"] == "int64"
    assert planned.summary.partitions == {"dt": "date32", "n": "int64", "lang": "string"}


@pytest.mark.parametrize("extension", FORMATS)
def test_they_serve_as_id_template_and_named_columns(tmp_path: Path, extension: str) -> None:
    source = tmp_path / "in"
    put(source / "dt=2024-01-01" / "n=7" / f"p.{extension}", [{"text": "a", "score": 1}])
    planned = plan(source, tmp_path / "root", id_column="dt", text_template="{n} {dt}: {text}", columns=["n"])
    assert (planned.ids(), planned.texts(), planned.columns()) == (
        ["2024-01-01"],
        ["7 2024-01-01: a"],
        {"n": [7]},
    )
    # Whose columns the template needs are there: the types of the others count.
    all_of_them = plan(source, tmp_path / "all", text_template="{n}: {text}")
    assert all_of_them.summary.columns["score"] == ("string" if extension == "csv" else "int64")


@pytest.mark.parametrize("extension", FORMATS)
def test_a_column_of_the_file_comes_first(tmp_path: Path, extension: str) -> None:
    source = tmp_path / "in"
    put(source / "code=007" / f"p.{extension}", [{"text": "a", "code": "007"}])
    put(source / "code=8" / f"q.{extension}", [{"text": "b", "code": "008"}])
    planned = plan(source, tmp_path / "root")
    assert planned.columns()["code"] == ["007", "008"]
    assert planned.summary.columns["code"] == "string"


def test_what_the_readers_of_the_field_make_of_it(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "year": 2020 + n % 2, "lang": ["de", "ü/:x"][n % 2]} for n in range(6)]
    table = pa.Table.from_pylist(rows)
    schema = pa.schema([table.schema.field(name) for name in ("year", "lang")])
    partitioning = pa.dataset.partitioning(schema, flavor="hive")
    pa.dataset.write_dataset(table, tmp_path / "in", format="parquet", partitioning=partitioning)
    columns = plan(tmp_path / "in", tmp_path / "root").columns()
    found = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    assert sorted(found, key=lambda row: row["text"]) == rows


@pytest.mark.parametrize(
    "folders", [("dt=1", "plain"), ("a=1/b=2", "b=2/a=1"), ("a=1", "a=1/b=2")], ids="|".join
)
def test_where_not_all_files_have_them_they_are_no_columns(tmp_path: Path, folders: tuple[str, str]) -> None:
    for folder in folders:
        put(tmp_path / "in" / folder / "p.jsonl", [{"text": "a"}])
    planned = plan(tmp_path / "in", tmp_path / "root")
    assert set(planned.summary.columns) == {"text"}
    [told] = [sentence for sentence in planned.summary.left_out if "key=value" in sentence]
    assert "not all files lie in the same keys, see " in told


def test_a_plain_source_says_nothing_of_partitions(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a" / "p.jsonl", [{"text": "a"}])
    put(tmp_path / "in" / "b=.jsonl", [{"text": "a"}])
    planned = plan(tmp_path / "in", tmp_path / "root")
    assert planned.summary.partitions == {} and planned.summary.left_out == []


def test_later_generations_keep_them(tmp_path: Path) -> None:
    source, root = tmp_path / "in", tmp_path / "root"
    put(source / "n=1" / "p.jsonl", [{"text": "a"}])
    plan(source, root)
    put(source / "n=2" / "q.jsonl", [{"text": "b"}])
    put(source / "elsewhere" / "q.jsonl", [{"text": "c"}])
    again = plan(source, root)
    assert sorted(zip(again.texts(), again.columns()["n"], strict=True), key=str) == [("b", 2), ("c", None)]
    assert again.summary.partitions == {"n": "int64"}
    [told] = again.summary.left_out
    assert told == "files that do not lie in folders of n, such as elsewhere/q.jsonl: null there"


def test_a_value_of_another_type_is_never_stored_as_another(tmp_path: Path) -> None:
    source, root = tmp_path / "in", tmp_path / "root"
    put(source / "n=1" / "p.jsonl", [{"text": "a"}])
    first = plan(source, root)
    put(source / "n=x" / "q.jsonl", [{"text": "b"}])
    second = plan(source, root)
    assert (first.columns()["n"], second.columns()["n"]) == ([1], ["x"])
    assert second.summary.partitions == {"n": "string"}


def test_a_plan_that_did_not_know_them_gets_them_as_new_columns(tmp_path: Path) -> None:
    source, root = tmp_path / "in", tmp_path / "root"
    put(source / "p.jsonl", [{"text": "a"}])
    first = plan(source, root)
    summary = (root / "plan" / "g0001.json").read_text()
    assert '"partitions": {}' in summary
    (root / "plan" / "g0001.json").write_text(summary.replace('"partitions": {}', '"later": 1'))
    assert read_summary(first.root, 1).partitions == {}
    (source / "n=1").mkdir()
    (source / "p.jsonl").rename(source / "n=1" / "p.jsonl")
    again = plan(source, root)
    assert again.columns() == {"text": ["a"], "n": [1]}


def test_an_unknown_type_in_a_plan_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "in" / "n=1" / "p.jsonl", [{"text": "a"}])
    planned = plan(tmp_path / "in", tmp_path / "root")
    path = tmp_path / "root" / "plan" / "g0001.json"
    path.write_text(path.read_text().replace('"n": "int64"\n  }', '"n": "int8"\n  }'))
    with pytest.raises(BatchAssetsError, match="no type 'int8'"):
        list(read_shard(planned.settings, planned.shards[0]))


def test_nothing_new_is_nothing_to_plan(tmp_path: Path) -> None:
    put(tmp_path / "in" / "n=1" / "p.jsonl", [{"text": "a"}])
    planned = plan(tmp_path / "in", tmp_path / "root")
    assert not plan_generation(planned.settings, planned.root).changes


def test_a_rejected_record_with_the_key_of_a_folder_costs_no_other(tmp_path: Path) -> None:
    put(tmp_path / "in" / "dt=2024-01-01" / "p.jsonl", [{"text": "hello"}, {"dt": "whatever", "n": 1}])
    planned = plan(tmp_path / "in", tmp_path / "root")
    assert planned.texts() == ["hello"]
    assert [str(day) for day in planned.columns()["dt"]] == ["2024-01-01"]
    assert [one.source_row for one in planned.rejections()] == [1]


def test_more_keys_than_are_planned_are_told(tmp_path: Path) -> None:
    source, root = tmp_path / "in", tmp_path / "root"
    put(source / "n=1" / "p.jsonl", [{"text": "a"}])
    plan(source, root)
    put(source / "n=2" / "hour=3" / "q.jsonl", [{"text": "b"}])
    again = plan(source, root)
    assert again.columns()["n"] == [2]
    [told] = again.summary.left_out
    assert (
        told == "keys of folders that are no columns of the plans before, such as those of n=2/hour=3/q.jsonl"
    )
