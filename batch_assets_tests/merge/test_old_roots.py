"""Versions whose parts lie beside their manifest, as all did once, are read by what the manifest says."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from batch_assets.merge.checks import check_accounting, check_vectors
from batch_assets.merge.parquet import Grouping, merge
from batch_assets.merge.publishing import current, open_current, publish
from batch_assets.merge.search import search
from batch_assets.merge.single_file import write_single_file
from batch_assets.merge.verification import verify
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import DIMENSIONS, write_shard
from batch_assets_tests.merge.old_roots import make_old
from batch_assets_tests.merge.test_verification import plan

ROWS = [0, 1, 2, 100, 101, 102]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "root"))


def publish_old(storage: Storage, grouping: Grouping | None = None) -> list[tuple[str, int]]:
    """Two shards, published; their version in the old layout."""
    shards = [(shard.key, shard.records) for shard in plan(storage, 1, [3, 3])]
    for number, (key, _) in enumerate(shards):
        topics = {"topic": ["news", "sport", "news"]}
        write_shard(storage, key, "eee", base=100 * number, columns={"topic": "string"}, values=topics)
    publish_next(storage, shards, grouping)
    make_old(Path(storage.uri))
    return shards


def publish_next(storage: Storage, shards: list[tuple[str, int]], grouping: Grouping | None = None) -> bool:
    """Whether the version is one that was there already."""
    merged = merge(storage, shards, "f" * 16, grouping=grouping)
    assert check_accounting(storage, merged.manifest).passed
    assert check_vectors(storage, merged.manifest).passed
    assert publish(storage, merged.manifest.version, merged.expected_current)
    return merged.reused


def test_an_old_version_is_read_verified_and_searched(storage: Storage) -> None:
    publish_old(storage)
    manifest = open_current(storage)
    assert manifest is not None
    assert [part.uri for part in manifest.parts] == ["part-00000.parquet", "part-00001.parquet"]
    assert manifest.data_folder == f"merged/{manifest.version}"
    report = verify(storage)
    assert (report.problems, report.accounting.embedded) == ([], 6)
    last = pl.read_parquet(f"{storage.uri}/{manifest.path(manifest.parts[1])}")["embedding"][2]
    [hit] = search(storage, last, 1)
    assert hit.columns["source_row"] == 102
    write_single_file(storage)
    assert pl.read_parquet(f"{storage.uri}/embeddings.parquet").height == 6


def test_a_file_too_many_beside_the_parts_is_found(storage: Storage) -> None:
    publish_old(storage)
    (Path(storage.uri) / "merged" / str(current(storage)) / "part-00002.parquet").write_bytes(b"")
    [problem] = verify(storage).problems
    assert "part-00002.parquet: the manifest does not name this file" in problem


@pytest.mark.parametrize("grouping", [None, Grouping("topic")])
def test_the_same_shards_again_give_the_old_version(storage: Storage, grouping: Grouping | None) -> None:
    shards = publish_old(storage, grouping)
    before = current(storage)
    assert publish_next(storage, shards, grouping)
    assert current(storage) == before
    assert verify(storage).problems == []


def test_what_comes_next_has_the_new_layout_and_the_old_version_stays(storage: Storage) -> None:
    shards = publish_old(storage)
    old = current(storage)
    write_shard(storage, "g0001-00001", "eer", fence=2, base=100, columns={"topic": "string"})
    assert not publish_next(storage, shards)
    manifest = open_current(storage)
    assert manifest is not None
    assert manifest.previous == old
    rows = pl.read_parquet(f"{storage.uri}/{manifest.data_folder}/")
    assert rows["source_row"].to_list() == [0, 1, 2, 100, 101]
    parts = sorted(Path(storage.uri).glob(f"merged/{old}/part-*.parquet"))
    assert pl.concat(pl.read_parquet(part) for part in parts)["source_row"].to_list() == ROWS


def test_old_groups_are_read_and_verified(storage: Storage) -> None:
    publish_old(storage, Grouping("topic"))
    manifest = open_current(storage)
    assert manifest is not None
    assert [(group.folder, group.rows) for group in manifest.groups] == [("news", 4), ("sport", 2)]
    assert [part.uri for part in manifest.parts] == ["news/part-00000.parquet", "sport/part-00000.parquet"]
    assert verify(storage).problems == []
    assert len(search(storage, np.ones(DIMENSIONS), 10)) == 6
