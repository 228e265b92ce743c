"""Another pipeline's committed shards as files: which one a key's is, and that they are only read."""

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batch_assets import paths
from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.sources.shards import ShardStorage, normalize_source, open_source
from batch_assets.storage import FileInfo, Storage, VersionMismatch, open_storage
from batch_assets_tests.sharding.chains import commit

KEY, FILE = "g0001-00000", "g0001-00000.parquet"


@pytest.fixture
def upstream(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "a"))


def test_one_spelling() -> None:
    assert normalize_source("shards:/out/x/../a/") == "shards:/out/a"
    assert normalize_source("shards:s3://bucket/a/") == "shards:s3://bucket/a"
    assert open_source("shards:/out/a/").uri == "shards:/out/a"
    with pytest.raises(ConfigurationError, match="ftp://"):
        normalize_source("shards:ftp://host/a")


def test_the_data_file_is_the_one_that_the_marker_names_now(upstream: Storage) -> None:
    first = commit(upstream, KEY, fence=3)
    source = ShardStorage(upstream)
    before = source.info(FILE)
    assert before == FileInfo(FILE, first.embeddings.bytes, first.embeddings.sha256)
    assert source.info("g0001-00002.parquet") is None
    assert source.info(KEY) is None
    assert source.read(FILE) == upstream.read(first.embeddings.path)
    read = b"".join(source.stream(FILE, 4, 10, first.embeddings.sha256))
    assert read == upstream.read(first.embeddings.path)[4:10]
    second = commit(upstream, KEY, fence=7, text="other")
    found = (upstream.read(second.embeddings.path), second.embeddings.sha256)
    assert source.read_versioned(FILE) == found
    assert pq.read_table(source.open_input(FILE))["text"][0].as_py() == f"other {KEY} 0"
    with pytest.raises(VersionMismatch):
        list(source.stream(FILE, version=first.embeddings.sha256))
    with pytest.raises(FileNotFoundError, match="shards:"):
        source.open_input("g0009-00000.parquet")


def test_nothing_is_written_nor_listed(upstream: Storage) -> None:
    commit(upstream, KEY)
    source = open_source(f"shards:{upstream.uri}")
    for write in (
        lambda: source.create("x", b""),
        lambda: source.replace("x", b"", "1"),
        lambda: source.write("x", b""),
        lambda: source.open_output("x"),
        lambda: source.copy(FILE, "x"),
        lambda: source.delete([FILE]),
    ):
        with pytest.raises(io.UnsupportedOperation, match="only read"):
            write()
    with pytest.raises(io.UnsupportedOperation, match="the plan says"):
        source.list()


@pytest.mark.parametrize("content", [b"{", b'{"shard": "g0001-00000", "fence": 2, "files": []}'])
def test_a_marker_that_is_none_is_named(upstream: Storage, content: bytes) -> None:
    upstream.write(paths.shard_marker(KEY), content)
    with pytest.raises(SourceError, match=r"a/shards/g0001-00000/shard\.json: cannot be read"):
        ShardStorage(upstream).info(FILE)
