"""Files that do not belong to a source are named at its plan, and are no news to the sensor."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.sharding.changes import compare_source
from batch_assets_tests.sharding.planning import Planned, plan, settings_of, write_lines


def put(folder: Path, name: str, *records: dict[str, Any]) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(records)), folder / name)
    elif name.endswith(".csv"):
        write_lines(folder / name, [",".join(records[0]), *(",".join(map(str, r.values())) for r in records)])
    else:
        write_lines(folder / name, [json.dumps(record) for record in records])


@pytest.mark.parametrize("extension", ["jsonl", "parquet", "csv"])
def test_a_stray_file_is_named_and_refused(tmp_path: Path, extension: str) -> None:
    source, stray = tmp_path / "in", f"deep/log.{extension}"
    for number in range(3):
        put(source, f"{number}.{extension}", {"id": number, "text": "a"})
    put(source, stray, {"level": "info", "message": "done"})
    told = rf"1 files have no column in common with the others \(id, text\), and no text: {stray} \(level, message\)"
    with pytest.raises(ConfigurationError, match=told):
        plan(source, tmp_path / "root")
    assert not (tmp_path / "root" / "plan").exists()
    assert plan(source, tmp_path / "root", exclude=["log.*"]).texts() == ["a"] * 3
    with_it = plan(source, tmp_path / "other", always_include=["deep/*"])
    assert (with_it.texts(), len(with_it.rejections())) == (["a"] * 3, 1)


def test_a_stray_file_of_a_later_generation(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.jsonl", {"text": "a", "id": 1})
    plan(tmp_path / "in", tmp_path / "root")
    put(tmp_path / "in", "b.jsonl", {"level": "info"})
    with pytest.raises(ConfigurationError, match=r"b.jsonl \(level\)"):
        plan(tmp_path / "in", tmp_path / "root")


def test_partition_columns_are_nothing_in_common(tmp_path: Path) -> None:
    put(tmp_path / "in", "dt=1/a.jsonl", {"text": "a"})
    put(tmp_path / "in", "dt=2/b.jsonl", {"level": "info"})
    with pytest.raises(ConfigurationError, match=r"dt=2/b.jsonl \(level\)"):
        plan(tmp_path / "in", tmp_path / "root")


def test_files_that_share_a_column_belong_together(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.jsonl", {"text": "a", "id": 1})
    put(tmp_path / "in", "b.jsonl", {"id": 2, "other": 1})
    planned = plan(tmp_path / "in", tmp_path / "root")
    assert (planned.texts(), len(planned.rejections())) == (["a"], 1)


def test_where_no_file_has_the_text_the_column_is_named(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.jsonl", {"a": 1})
    put(tmp_path / "in", "b.jsonl", {"b": 1})
    with pytest.raises(ConfigurationError, match=r"source.text_column: 'text' is in no record"):
        plan(tmp_path / "in", tmp_path / "root")


def versions(planned: Planned) -> dict[str, str]:
    return {file.path: file.version for file in planned.summary.files}


def test_the_sensor_sees_no_news_in_what_is_left_out(tmp_path: Path) -> None:
    source = tmp_path / "in"
    put(source, "a.jsonl", {"text": "a"})
    planned = plan(source, tmp_path / "root", exclude=["*.tmp.jsonl"])
    owner: dict[str, Any] = {"pipeline": "other", "epoch": 1, "source": [], "configuration": {}}
    put(source, "out/pipeline.json", owner)
    put(source, "out/plan/g0001.json", {"x": 1})
    put(source, "out/shards/g0001-00000/shard.json", {"x": 1})
    put(source, "metadata.json", {"rows": 1})
    put(source, "b.tmp.jsonl", {"text": "b"})
    assert compare_source(planned.settings, lambda *_: versions(planned), "jsonl").new == []
    put(source, "c.jsonl", {"text": "c"})
    put(source, "x/metadata.json", {"text": "d"})
    settings = settings_of(source, tmp_path / "root", exclude=["*.tmp.jsonl"])
    assert compare_source(settings, lambda *_: versions(planned), "jsonl").new == [
        "c.jsonl",
        "x/metadata.json",
    ]
