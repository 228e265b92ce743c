"""Another pipeline's shards as a source: what is listed, what is read, what a new version does."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batch_assets import paths
from batch_assets.embeddings.marker import ShardMarker
from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets.sharding.changes import compare_source
from batch_assets.sharding.plan_files import read_plan, write_plan
from batch_assets.sharding.planner import plan_generation
from batch_assets.sources.listing import list_source
from batch_assets.sources.shards import ShardStorage, normalize_source, open_source
from batch_assets.storage import FileInfo, Storage, VersionMismatch, open_storage
from batch_assets_tests.embeddings.builders import DIMENSIONS, write_shard
from batch_assets_tests.object_store import s3_server, use_s3
from batch_assets_tests.sharding.planning import Planned, plan, write_lines

COLUMNS = {"text": "string", "n": "int64", "a.b": "json", "user_embedding": "float64"}


@pytest.fixture
def upstream(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "a"))


def commit(root: Storage, key: str, kinds: str = "eee", *, fence: int = 1, text: str = "text") -> ShardMarker:
    """A committed shard whose record n has the text `<text> <key> n`."""
    count = len(kinds) - kinds.count("r")
    values: dict[str, list[Any]] = {
        "text": [f"{text} {key} {n}" for n in range(count)],
        "n": list(range(count)),
        "a.b": ['{"c": 1}'] * count,
        "user_embedding": [0.5] * count,
    }
    return write_shard(root, key, kinds, fence=fence, columns=COLUMNS, values=values)


def over(root: Storage, tmp_path: Path, **source: Any) -> PipelineSettings:
    """A pipeline over the shards under `root`, as `components/` resolves it."""
    resolved = {"uri": f"shards:{root.uri}", "pipeline": "a", "id_column": "record_id", **source}
    values = {"source": resolved, "shards": {"records": 100}, "output": {"root": str(tmp_path / "b")}}
    return parse_pipeline(values, "b", "a test")


def plan_over(settings: PipelineSettings, *, replace: bool = False) -> Planned:
    storage = open_storage(settings.output.root)
    result = plan_generation(settings, storage, replace=replace)
    write_plan(storage, result.summary, result.shards)
    return Planned(settings, storage, result, *read_plan(storage, result.summary.generation))


def test_one_spelling() -> None:
    assert normalize_source("shards:/out/x/../a/") == "shards:/out/a"
    assert normalize_source("shards:s3://bucket/a/") == "shards:s3://bucket/a"
    assert open_source("shards:/out/a/").uri == "shards:/out/a"
    with pytest.raises(ConfigurationError, match="ftp://"):
        normalize_source("shards:ftp://host/a")


def test_committed_shards_are_files_in_the_order_of_their_keys(upstream: Storage) -> None:
    markers = [commit(upstream, key) for key in ("g0002-00000", "g0001-00001", "g0001-00000")]
    upstream.write("shards/g0001-00002/input.json", b"{}")  # prepared, not committed
    upstream.write("shards/g0001-00003/attempts/1/shard.json", b"{}")
    source = open_source(f"shards:{upstream.uri}")
    found = list(source.list())
    expected = sorted(markers, key=lambda marker: marker.shard)
    assert found == [
        FileInfo(f"{marker.shard}.parquet", marker.embeddings.bytes, marker.embeddings.sha256)
        for marker in expected
    ]
    assert list(source.list(after=found[0].path)) == found[1:]
    assert list(source.list(after=found[-1].path)) == []
    assert source.info("g0001-00002.parquet") is None
    assert source.info("g0001-00000") is None


def test_superseded_shards_are_left_out_though_they_are_committed(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "in" / "x.jsonl", ['{"text": "one"}'])
    plan(tmp_path / "in", tmp_path / "a")
    write_lines(file, ['{"text": "one"}', '{"text": "two"}'])
    plan(tmp_path / "in", tmp_path / "a", replace=True)
    root = open_storage(str(tmp_path / "a"))
    for key in ("g0001-00000", "g0002-00000"):
        commit(root, key)
    assert [info.path for info in ShardStorage(root).list()] == ["g0002-00000.parquet"]


def test_the_data_file_is_the_one_that_the_marker_names_now(upstream: Storage) -> None:
    first = commit(upstream, "g0001-00000", fence=3)
    source = ShardStorage(upstream)
    before = source.info("g0001-00000.parquet")
    assert before is not None
    assert source.read("g0001-00000.parquet") == upstream.read(first.embeddings.path)
    assert (
        b"".join(source.stream("g0001-00000.parquet", 4, 10, before.version))
        == (upstream.read(first.embeddings.path)[4:10])
    )
    second = commit(upstream, "g0001-00000", fence=7, text="other")
    assert source.read_versioned("g0001-00000.parquet") == (
        upstream.read(second.embeddings.path),
        second.embeddings.sha256,
    )
    assert pq.read_table(source.open_input("g0001-00000.parquet"))["text"][0].as_py() == "other g0001-00000 0"
    with pytest.raises(VersionMismatch):
        list(source.stream("g0001-00000.parquet", version=before.version))
    with pytest.raises(FileNotFoundError, match="shards:"):
        source.open_input("g0009-00000.parquet")


def test_nothing_is_written(upstream: Storage) -> None:
    commit(upstream, "g0001-00000")
    source = open_source(f"shards:{upstream.uri}")
    for write in (
        lambda: source.create("x", b""),
        lambda: source.replace("x", b"", "1"),
        lambda: source.write("x", b""),
        lambda: source.open_output("x"),
        lambda: source.copy("g0001-00000.parquet", "x"),
        lambda: source.delete(["g0001-00000.parquet"]),
    ):
        with pytest.raises(io.UnsupportedOperation, match="only read"):
            write()


@pytest.mark.parametrize("content", [b"{", b'{"shard": "g0001-00000", "fence": 2, "files": []}'])
def test_a_marker_that_is_none_is_named(upstream: Storage, content: bytes) -> None:
    upstream.write(paths.shard_marker("g0001-00000"), content)
    with pytest.raises(SourceError, match=r"a/shards/g0001-00000/shard\.json: cannot be read"):
        list(ShardStorage(upstream).list())


def test_embedded_records_come_in_order_with_their_columns_and_ids(upstream: Storage, tmp_path: Path) -> None:
    for key in ("g0001-00000", "g0001-00001"):
        commit(upstream, key, "erfe")
    planned = plan_over(over(upstream, tmp_path))
    assert planned.summary.columns == {**COLUMNS, "a.b": "string"}
    assert planned.rows() == [(f"g0001-0000{shard}.parquet", row) for shard in (0, 1) for row in (0, 1)]
    assert planned.ids() == ["id-0", "id-3"] * 2
    assert planned.columns()["n"] == [0, 2] * 2
    assert planned.columns()["a.b"] == ['{"c": 1}'] * 4
    assert planned.texts()[:2] == ["text g0001-00000 0", "text g0001-00000 2"]
    # Not the vectors' bytes either, which would make shards small for nothing.
    assert planned.summary.bytes < 4 * DIMENSIONS * 4 + sum(map(len, planned.texts())) * 20


def test_what_is_passed_through_can_be_named(upstream: Storage, tmp_path: Path) -> None:
    commit(upstream, "g0001-00000")
    planned = plan_over(over(upstream, tmp_path, columns=["n", "record_id"], text_template="{text} {n}"))
    assert planned.columns() == {"n": [0, 1, 2], "user_record_id": ["id-0", "id-1", "id-2"]}
    assert planned.texts()[2] == "text g0001-00000 2 2"


@pytest.mark.parametrize("name", ["embedding", "source_file", "token_count"])
def test_the_other_outputs_own_columns_are_not_there(upstream: Storage, tmp_path: Path, name: str) -> None:
    commit(upstream, "g0001-00000")
    with pytest.raises(ConfigurationError, match=rf"source\.columns: '{name}' in no record; .*'text'"):
        plan_over(over(upstream, tmp_path, columns=[name]))


def test_a_shard_computed_again_is_touched_and_stays_until_replaced(
    upstream: Storage, tmp_path: Path
) -> None:
    for key in ("g0001-00000", "g0001-00001"):
        commit(upstream, key)
    settings = over(upstream, tmp_path)
    first = plan_over(settings)
    commit(upstream, "g0001-00001", fence=2, text="new")
    changes = compare_source(settings, lambda after, until: versions(first), "parquet")
    assert (changes.new, changes.touched, changes.removed) == ([], ["g0001-00001.parquet"], [])
    with pytest.raises(SourceError, match=r"g0001-00001\.parquet: touched since it was planned"):
        first.texts()
    second = plan_over(settings, replace=True)
    assert second.result.touched == ["g0001-00001.parquet"]
    assert second.summary.superseded == ["g0001-00000"]
    assert second.texts()[2:4] == ["text g0001-00000 2", "new g0001-00001 0"]


def versions(planned: Planned) -> dict[str, str]:
    return {file.path: file.version for file in planned.summary.files}


def test_new_shards_are_new_files_a_page_at_a_time(
    upstream: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(upstream, "g0001-00000")
    settings = over(upstream, tmp_path)
    first = plan_over(settings)
    commit(upstream, "g0001-00001")
    commit(upstream, "g0002-00000")
    monkeypatch.setattr("batch_assets.sharding.changes.FILES_PER_PAGE", 2)
    page = compare_source(settings, lambda after, until: versions(first), "parquet")
    assert (page.new, page.cursor) == (["g0001-00001.parquet"], "g0001-00001.parquet")
    page = compare_source(settings, lambda after, until: {}, "parquet", page.cursor)
    assert (page.new, page.cursor) == (["g0002-00000.parquet"], None)
    second = plan_over(settings)
    assert [file.path for file in second.summary.files] == ["g0001-00001.parquet", "g0002-00000.parquet"]


def test_without_a_committed_shard_the_pipeline_to_run_is_named(upstream: Storage) -> None:
    told = rf"source\.pipeline: 'a' has no committed shard under {upstream.uri} yet; `batch-assets run a`"
    with pytest.raises(SourceError, match=told):
        list_source(f"shards:{upstream.uri}", None, pipeline="a")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        yield address


def test_in_a_bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_s3(endpoint, monkeypatch)
    root = open_storage("s3://bucket/a")
    keys = [f"g0001-{number:05d}" for number in range(5)]
    for key in keys:
        commit(root, key)
    planned = plan_over(over(root, tmp_path))
    assert planned.summary.base_uri == "shards:s3://bucket/a"
    assert planned.texts() == [f"text {key} {n}" for key in keys for n in range(3)]
    found = list(ShardStorage(root).list(after=f"{keys[2]}.parquet"))
    assert [info.path for info in found] == [f"{key}.parquet" for key in keys[3:]]
