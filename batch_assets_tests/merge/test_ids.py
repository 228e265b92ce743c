"""The ids of a merged version: counted over all shards, and refused where they are to be unique."""

from dataclasses import replace
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.embeddings.marker import commit_marker
from batch_assets.embeddings.shard_writer import ShardWriter
from batch_assets.errors import AccountingError
from batch_assets.merge import ids as merge_ids
from batch_assets.merge.parquet import merge
from batch_assets.merge.publishing import current
from batch_assets.sources.record_ids import IdCount
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import make_outcomes, marker_of

FINGERPRINT = "f" * 16


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "root"))


def write_ids(
    storage: Storage, shard: str, names: list[str | None], rejected: str | None = None
) -> tuple[str, int]:
    """Commit a shard of embedded records with these ids; with `rejected`, one more that is not embedded."""
    kinds = "e" * len(names) + ("r" if rejected else "")
    outcomes = make_outcomes(kinds, file=f"{shard}.jsonl")
    records = outcomes.records
    records.record_ids = [f"{shard}:{n}" if name is None else name for n, name in enumerate(names)]
    records.rejections = [replace(one, record_id=rejected or "") for one in records.rejections]
    writer = ShardWriter(storage, shard, 1, {}, "float32")
    writer.write(outcomes)
    assert commit_marker(storage, marker_of(writer.close(), shard, 1, len(kinds)), None)
    return shard, len(kinds)


def write_two(storage: Storage) -> list[tuple[str, int]]:
    """Of two generations: `a` three times, `b` twice, `c` once and once rejected, two without an id."""
    return [
        write_ids(storage, "g0001-00000", ["a", "b", None, "a"], rejected="c"),
        write_ids(storage, "g0002-00000", ["c", "b", "a", None, "g0001-00000:2", ""]),
    ]


def test_ids_are_counted_over_all_shards(storage: Storage) -> None:
    result = merge(storage, write_two(storage), FINGERPRINT, ids="any")
    assert result.manifest.ids == IdCount(duplicates=2, records=5, missing=2)
    told = orjson.loads(storage.read(f"merged/{result.manifest.version}/metadata.json"))
    counted = {"duplicate_ids": 2, "duplicate_id_records": 5, "missing_ids": 2, "ids_exact": True}
    assert counted.items() <= told.items()
    assert merge(storage, [("g0001-00000", 5), ("g0002-00000", 6)], FINGERPRINT, ids="any").reused


def test_where_records_have_no_ids_none_are_counted(storage: Storage) -> None:
    result = merge(storage, write_two(storage), FINGERPRINT)
    assert result.manifest.ids is None
    assert b"duplicate_ids" not in storage.read(f"merged/{result.manifest.version}/metadata.json")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["c", "b"],
            r"1 ids occur more than once \(2 records\): 'b' in g0001-00000.jsonl row 1 and g0002-00000.jsonl row 1;",
        ),
        (["c", None], "1 records have no id and are named by their place: none in g0002-00000.jsonl row 1;"),
    ],
)
def test_ids_that_are_to_be_unique_stop_the_merge(
    storage: Storage, names: list[str | None], message: str
) -> None:
    shards = [write_ids(storage, "g0001-00000", ["a", "b"]), write_ids(storage, "g0002-00000", names)]
    with pytest.raises(AccountingError, match=f"source.ids: unique, but {message} nothing is published"):
        merge(storage, shards, FINGERPRINT, ids="unique")
    assert list(storage.list("merged")) == []


def test_a_version_of_unknown_ids_is_not_taken_for_one_of_unique_ids(storage: Storage) -> None:
    shards = [write_ids(storage, "g0001-00000", ["a", "b"]), write_ids(storage, "g0002-00000", ["c"])]
    earlier = merge(storage, shards, FINGERPRINT)
    unique = merge(storage, shards, FINGERPRINT, ids="unique")
    assert not unique.reused and unique.manifest.version != earlier.manifest.version
    assert merge(storage, shards, FINGERPRINT, ids="unique").reused

    shards[1] = ("g0002-00001", 1)
    write_ids(storage, "g0002-00001", ["a"])
    merge(storage, shards, FINGERPRINT, ids="any")
    with pytest.raises(AccountingError, match=r"'a' in g0001-00000.jsonl row 0 and g0002-00001.jsonl row 0"):
        merge(storage, shards, FINGERPRINT, ids="unique")


def test_equal_hashes_are_no_equal_ids(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_ids, "id_hashes", lambda ids: [7] * len(ids))
    monkeypatch.setattr("batch_assets.sources.id_examples.id_hashes", lambda ids: [7] * len(ids))
    shards = [write_ids(storage, "g0001-00000", ["a", "b"]), write_ids(storage, "g0002-00000", ["c"])]
    assert merge(storage, shards, FINGERPRINT, ids="unique").manifest.ids == IdCount()


def test_a_damaged_file_is_named(storage: Storage) -> None:
    shards = write_two(storage)
    [path] = [info.path for info in storage.list("shards/g0002-00000") if "embeddings" in info.path]
    table = pq.read_table(f"{storage.uri}/{path}")
    pq.write_table(table.set_column(0, "record_id", pa.array(range(len(table)))), f"{storage.uri}/{path}")
    with pytest.raises(AccountingError, match=path):
        merge(storage, shards, FINGERPRINT, ids="any")
    assert current(storage) is None
