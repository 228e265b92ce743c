"""One file at the root for readers of one file: its columns, its order, and that it follows what is published."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import AccountingError, ConfigurationError
from batch_assets.merge import single_file
from batch_assets.merge.parquet import merge
from batch_assets.merge.publishing import current, publish
from batch_assets.merge.single_file import column_order, write_single_file
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import DIMENSIONS, unit_vectors, write_shard

COLUMNS = {"meta_width": "int64", "key": "string", "caption": "string", "url": "string", "own": "string"}
ORDER = ["url", "key", "caption", "embedding", "meta_width", "own"]
PER_SHARD = 10


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def publish_shards(storage: Storage, numbers: Sequence[int]) -> str:
    """Write and publish shards of ten images each; the version."""
    for number in numbers:
        rows = range(PER_SHARD * number, PER_SHARD * (number + 1))
        values = {
            "meta_width": list(rows),
            "key": [f"{row:05d}" for row in rows],
            "caption": [None if row % 3 else f"caption {row}" for row in rows],
            "url": [f"http://host/{row}.jpg" for row in rows],
            "own": ["x"] * PER_SHARD,
        }
        key = f"g0001-{number:05d}"
        write_shard(storage, key, "e" * PER_SHARD, base=rows.start, columns=COLUMNS, values=values)
    result = merge(storage, [(f"g0001-{number:05d}", PER_SHARD) for number in numbers], "f" * 16)
    assert publish(storage, result.manifest.version, result.expected_current)
    return result.manifest.version


def told(storage: Storage) -> dict[str, object]:
    return json.loads(storage.read("metadata.json"))


def test_it_holds_all_rows_in_order_under_the_names_that_readers_know(
    storage: Storage, tmp_path: Path
) -> None:
    version = publish_shards(storage, [0, 1, 2])
    write_single_file(storage)
    rows = pl.read_parquet(tmp_path / "embeddings.parquet")
    assert rows.columns == ORDER
    assert rows["key"].to_list() == [f"{row:05d}" for row in range(30)]
    assert np.array_equal(rows["embedding"].to_numpy(), unit_vectors(range(30)))
    assert rows["caption"][0] == "caption 0" and rows["meta_width"].to_list() == list(range(30))
    assert pq.read_table(tmp_path / "embeddings.parquet")["embedding"].type.list_size == DIMENSIONS
    found = told(storage)
    assert (found["num_samples"], found["model"], found["version"]) == (30, "tiny", version)
    assert "timestamp" in found


def test_it_follows_each_publish_and_is_not_written_twice(storage: Storage, tmp_path: Path) -> None:
    write_single_file(storage)
    assert not (tmp_path / "embeddings.parquet").exists(), "nothing is published"
    publish_shards(storage, [0])
    write_single_file(storage)
    before = (tmp_path / "embeddings.parquet").stat()
    write_single_file(storage)
    assert (tmp_path / "embeddings.parquet").stat().st_ino == before.st_ino
    version = publish_shards(storage, [0, 1])
    write_single_file(storage)
    assert pl.read_parquet(tmp_path / "embeddings.parquet").height == 20
    assert told(storage)["version"] == version


@pytest.mark.parametrize("lost", ["embeddings.parquet", "metadata.json"])
@pytest.mark.parametrize("content", [None, b"somebody else's"])
def test_what_a_crash_left_undone_or_somebody_damaged_is_made_again(
    storage: Storage, tmp_path: Path, lost: str, content: bytes | None
) -> None:
    version = publish_shards(storage, [0])
    write_single_file(storage)
    if content is None:
        (tmp_path / lost).unlink()
    else:
        (tmp_path / lost).write_bytes(content)
    write_single_file(storage)
    assert pl.read_parquet(tmp_path / "embeddings.parquet").height == 10
    assert told(storage)["version"] == version


def test_a_writer_that_comes_late_does_not_leave_an_older_version(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run publishes, and writes its file, while this one is still at the older version's."""
    publish_shards(storage, [0])
    writing = single_file._write_rows
    late: list[str] = []

    def slow(storage: Storage, manifest: single_file.Manifest) -> None:
        if not late:
            late.append(manifest.version)
            publish_shards(storage, [0, 1])
            write_single_file(storage)
        writing(storage, manifest)

    monkeypatch.setattr(single_file, "_write_rows", slow)
    write_single_file(storage)
    assert pl.read_parquet(tmp_path / "embeddings.parquet").height == 20
    assert told(storage)["version"] == current(storage) != late[0]


def test_a_part_that_lacks_rows_leaves_the_old_file(storage: Storage, tmp_path: Path) -> None:
    publish_shards(storage, [0])
    write_single_file(storage)
    version = publish_shards(storage, [0, 1])
    (tmp_path / "merged" / version / "data/part-00001.parquet").unlink()
    with pytest.raises(AccountingError, match="missing"):
        write_single_file(storage)
    assert pl.read_parquet(tmp_path / "embeddings.parquet").height == 10
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_columns_that_are_not_there_are_left_out() -> None:
    assert column_order(["record_id", "source_file", "source_row", "b", "meta_a", "embedding", "token_count"]) == [
        "embedding", "meta_a", "b",
    ]  # fmt: skip
    assert column_order(["record_id", "response", "input_tokens"]) == ["response", "input_tokens"]


def test_rows_that_somebody_has_written_anew_are_not_replaced(storage: Storage, tmp_path: Path) -> None:
    publish_shards(storage, [0])
    write_single_file(storage)
    rows = pl.read_parquet(tmp_path / "embeddings.parquet").with_columns(mine=pl.lit(1))
    rows.write_parquet(tmp_path / "embeddings.parquet")
    publish_shards(storage, [0, 1])
    with pytest.raises(ConfigurationError, match=r"embeddings.parquet: is there already"):
        write_single_file(storage)
    assert "mine" in pl.read_parquet(tmp_path / "embeddings.parquet").columns


@pytest.mark.parametrize("name", ["embeddings.parquet", "metadata.json"])
@pytest.mark.parametrize("content", [b"mine", b'{"version": "1.0"}', b"[]"])
def test_a_file_of_somebody_else_is_not_replaced(
    storage: Storage, tmp_path: Path, name: str, content: bytes
) -> None:
    publish_shards(storage, [0])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"{name}: is there already"):
        write_single_file(storage)
    assert (tmp_path / name).read_bytes() == content
    (tmp_path / name).unlink()
    write_single_file(storage)
    assert pl.read_parquet(tmp_path / "embeddings.parquet").height == PER_SHARD


@pytest.mark.parametrize("damage", [b"{", b"[]", b"null", b"{}"])
def test_a_version_whose_metadata_is_damaged_is_named(storage: Storage, damage: bytes) -> None:
    version = publish_shards(storage, [0])
    storage.write(f"merged/{version}/metadata.json", damage)
    with pytest.raises(
        AccountingError,
        match=rf"merged/{version}/metadata\.json: does not name the model.*restore it from a copy",
    ):
        write_single_file(storage)
