"""Source and root in buckets: planned, read, touched, as on a local disk."""

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.sharding.changes import compare_source
from batch_assets.sharding.manifest import prepare_input
from batch_assets.sharding.reading import read_rows, read_shard
from batch_assets.sources.format_guess import guess_format
from batch_assets.worker.fetching import fetch
from batch_assets_tests.object_store import s3_server, use_s3
from batch_assets_tests.sharding.planning import plan
from batch_assets_tests.sources.tables.delta import rows
from batch_assets_tests.sources.tables.iceberg import create
from batch_assets_tests.sources.tars import tar_bytes


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    return use_s3(endpoint, monkeypatch)


def put(s3: Any, key: str, data: bytes) -> None:
    s3.put_object(Bucket="bucket", Key=key, Body=data)


def json_lines(name: str, count: int) -> bytes:
    return b"".join(b'{"text": "%s %d", "n": %d}\n' % (name.encode(), n, n) for n in range(count))


def test_json_lines(s3: Any) -> None:
    put(s3, "data/", b"")
    put(s3, "data/a b%20+ü.jsonl", json_lines("a", 10))
    put(s3, "data/deep/c.jsonl.gz", gzip.compress(json_lines("c", 5)))
    put(s3, "data/_SUCCESS", b"")
    put(s3, "data-old/x.jsonl", json_lines("old", 3))
    put(s3, "data/empty.jsonl", b"")
    planned = plan("s3://bucket/data/", "s3://bucket/root", {"records": 4})
    assert [shard.records for shard in planned.shards] == [4, 4, 4, 3]
    assert planned.texts() == [*(f"a {n}" for n in range(10)), *(f"c {n}" for n in range(5))]
    assert planned.columns()["n"] == [*range(10), *range(5)]
    assert [file.path for file in planned.summary.files] == [
        "a b%20+ü.jsonl",
        "deep/c.jsonl.gz",
        "empty.jsonl",
    ]
    assert prepare_input(planned.settings, planned.shards[0]).valid == 4
    put(s3, "data/a b%20+ü.jsonl", json_lines("b", 10))
    with pytest.raises(SourceError, match="touched since it was planned"):
        planned.texts()
    again = plan("s3://bucket/data", "s3://bucket/root", {"records": 4}, replace=True)
    assert again.result.touched == ["a b%20+ü.jsonl"]
    # With the shard that they shared go the first records of the next file; they are planned again, unread.
    assert again.texts() == [*(f"b {n}" for n in range(10)), "c 0", "c 1"]


def test_a_file_larger_than_a_chunk(s3: Any) -> None:
    lines = [b'{"text": "%d %s"}' % (n, b"x" * 2000) for n in range(9_000)]
    put(s3, "big.jsonl", b"\n".join(lines))
    planned = plan("s3://bucket/big.jsonl", "s3://bucket/root")
    assert planned.summary.base_uri == "s3://bucket"
    assert planned.rows() == [("big.jsonl", row) for row in range(9_000)]


def test_parquet(s3: Any) -> None:
    for name, start in (("a", 0), ("b", 1_000)):
        sink = io.BytesIO()
        table = pa.table(
            {"text": [f"text {n}" for n in range(start, start + 1_000)], "n": range(start, start + 1_000)}
        )
        pq.write_table(table, sink, row_group_size=300)
        put(s3, f"data/{name}.parquet", sink.getvalue())
    planned = plan("s3://bucket/data", "s3://bucket/data/out", {"records": 700})
    assert planned.texts() == [f"text {n}" for n in range(2_000)]
    assert planned.columns()["n"] == list(range(2_000))
    put(s3, "data/a.parquet", b"PAR1")
    with pytest.raises(SourceError, match="touched"):
        planned.read(planned.shards[0])
    s3.delete_object(Bucket="bucket", Key="data/b.parquet")
    with pytest.raises(SourceError, match="missing"):
        planned.read(planned.shards[-1])


def test_images(s3: Any) -> None:
    pictures = [bytes([n]) * 400_000 for n in range(24)]
    put(s3, "tars/0.tar", tar_bytes([(f"{n:02d}.jpg", data) for n, data in enumerate(pictures)]))
    sink = io.BytesIO()
    pq.write_table(pa.table({"key": [f"{n:02d}" for n in range(24)], "jpg": pictures}), sink)
    put(s3, "tables/0.parquet", sink.getvalue())
    sink = io.BytesIO()
    pq.write_table(pa.table({"key": [f"{n:02d}" for n in range(24)], "score": range(24)}), sink)
    put(s3, "tars/0.parquet", sink.getvalue())
    for folder, format in (("tars", "webdataset"), ("tables", "img2dataset")):
        assert guess_format(f"s3://bucket/{folder}/", tables=True) == format
        planned = plan(f"s3://bucket/{folder}/", f"s3://bucket/out/{folder}", {"records": 23}, format=format)
        assert [image for records in planned.records() for image in records.images or []] == pictures
        assert planned.columns()["key"] == [f"{n:02d}" for n in range(24)]
        path = planned.summary.files[0].path
        assert read_rows(planned.settings, planned.shards[0], [(path, 22)]) == {
            (path, 22): (pictures[22], "")
        }
        if format == "webdataset":
            assert planned.columns()["meta_score"] == list(range(24))
        put(s3, f"{folder}/{path}", b"touched")
        for contents in (True, False):
            with pytest.raises(SourceError, match="touched"):
                list(read_shard(planned.settings, planned.shards[0], contents=contents))


def test_a_folder_of_images(s3: Any) -> None:
    for number in range(20):
        put(s3, f"photos/{number:02d} ü.jpg", b"x")
        put(s3, f"photos/{number:02d} ü.txt", f"photo {number}".encode())
    put(s3, "photos/metadata.jsonl", b'{"file_name": "07 \xc3\xbc.jpg", "stars": 5}')
    assert guess_format("s3://bucket/photos/") == "imagefolder"
    planned = plan("s3://bucket/photos/", "s3://bucket/out", format="imagefolder")
    names = [f"{number:02d} ü" for number in range(20)]
    found = [image for records in planned.records() for image in records.images or []]
    assert found == [f"s3://bucket/photos/{name}.jpg" for name in names]
    assert [fetch(str(place), most_bytes=10, allow_private=False) for place in found[:2]] == [b"x", b"x"]
    assert planned.texts() == [f"photo {number}" for number in range(20)]
    assert planned.columns()["key"] == names
    assert planned.columns()["meta_stars"] == [5 if number == 7 else None for number in range(20)]
    put(s3, "photos/03 ü.txt", b"touched")
    with pytest.raises(SourceError, match="touched"):
        planned.records()


def test_nothing_there(s3: Any) -> None:
    with pytest.raises(SourceError, match="no files"):
        plan("s3://bucket/nothing", "s3://bucket/root")


def test_changes_are_found_page_by_page(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch_assets.sharding.changes.FILES_PER_PAGE", 2)
    for name in "abcdef":
        put(s3, f"data/{name}.jsonl", json_lines(name, 2))
    planned = plan("s3://bucket/data", "s3://bucket/root")
    versions = {file.path: file.version for file in planned.summary.files}

    def between(after: str | None, until: str | None) -> dict[str, str]:
        return {p: v for p, v in versions.items() if (after or "") < p and (until is None or p <= until)}

    put(s3, "data/b.jsonl", b"other")
    put(s3, "data/bb.jsonl", b"new")
    put(s3, "data/_hidden.jsonl", b"new")
    put(s3, "data/z.csv", b"other format")
    s3.delete_object(Bucket="bucket", Key="data/f.jsonl")
    found: list[tuple[list[str], list[str], list[str]]] = []
    cursor: str | None = None
    for _ in range(10):
        changes = compare_source(planned.settings, between, "jsonl", cursor)
        found.append((changes.new, changes.touched, changes.removed))
        cursor = changes.cursor
        if cursor is None:
            break
    assert [path for new, _, _ in found for path in new] == ["bb.jsonl"]
    assert [path for _, touched, _ in found for path in touched] == ["b.jsonl"]
    assert [path for _, _, removed in found for path in removed] == ["f.jsonl"]
    assert len(found) == 5


def test_a_delta_table(s3: Any) -> None:
    options = {"AWS_ALLOW_HTTP": "true", "AWS_S3_ALLOW_UNSAFE_RENAME": "true"}
    uri = "s3://bucket/lake/table"
    deltalake.write_deltalake(uri, rows(0, 4, lang="de"), partition_by=["lang"], storage_options=options)
    deltalake.DeltaTable(uri, storage_options=options).delete("id = 'k1'")
    planned = plan(uri + "/", "s3://bucket/root", id_column="id")
    assert planned.ids() == ["k0", "k2", "k3"] and planned.columns()["lang"] == ["de"] * 3
    put(s3, "lake/other.parquet", b"")
    with pytest.raises(ConfigurationError, match="table: a Delta table"):
        plan("s3://bucket/lake", "s3://bucket/other")
    with pytest.raises(ConfigurationError, match="lies inside s3://bucket/lake/table, a Delta table"):
        plan("s3://bucket/lake/table/lang=de", "s3://bucket/other")


def test_an_iceberg_table(s3: Any, tmp_path: Path) -> None:
    create(tmp_path / "table", rows(0, 1).schema).append(rows(0, 3))
    for file in (tmp_path / "table").rglob("*.*"):
        put(s3, f"lake/iceberg/{file.relative_to(tmp_path / 'table').as_posix()}", file.read_bytes())
    assert plan("s3://bucket/lake/iceberg", "s3://bucket/root", id_column="id").ids() == ["k0", "k1", "k2"]
    with pytest.raises(ConfigurationError, match="lies inside s3://bucket/lake/iceberg, an Iceberg table"):
        plan("s3://bucket/lake/iceberg/data", "s3://bucket/other")
