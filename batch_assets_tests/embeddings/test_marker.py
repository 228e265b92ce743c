from pathlib import Path

import orjson
import pytest

from batch_assets.embeddings.marker import commit_marker, read_marker
from batch_assets.errors import AccountingError
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import write_shard

SHARD = "g0001-00003"
PATH = f"shards/{SHARD}/shard.json"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def test_a_marker_comes_back_as_it_was_committed(storage: Storage) -> None:
    marker = write_shard(storage, SHARD, "eerf")
    found = read_marker(storage, SHARD)
    assert found is not None
    assert found[0] == marker
    data = storage.read(PATH)
    assert list(orjson.loads(data)) == sorted(orjson.loads(data))
    assert b'\n  "counts": {\n' in data
    assert orjson.loads(data)["files"][0].keys() == {"path", "rows", "bytes", "sha256"}


def test_an_uncommitted_shard_has_no_marker(storage: Storage) -> None:
    assert read_marker(storage, SHARD) is None


def test_only_the_version_seen_is_replaced(storage: Storage) -> None:
    first = write_shard(storage, SHARD, fence=1)
    found = read_marker(storage, SHARD)
    assert found is not None
    assert not commit_marker(storage, first, None)  # somebody came first
    write_shard(storage, SHARD, fence=3)
    assert not commit_marker(storage, first, found[1])  # a late one
    now = read_marker(storage, SHARD)
    assert now is not None
    assert now[0].fence == 3


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"shard": "g0001-00003"}'],
)
def test_an_unreadable_marker_is_named(storage: Storage, data: bytes) -> None:
    storage.write(PATH, data)
    with pytest.raises(AccountingError, match=PATH):
        read_marker(storage, SHARD)


@pytest.mark.parametrize(("key", "value"), [("shard", "g0001-00004"), ("format", 2), ("fence", "one")])
def test_a_marker_of_something_else_is_refused(storage: Storage, key: str, value: object) -> None:
    write_shard(storage, SHARD)
    storage.write(PATH, orjson.dumps(orjson.loads(storage.read(PATH)) | {key: value}))
    with pytest.raises(AccountingError, match=PATH):
        read_marker(storage, SHARD)


def test_fields_of_a_later_program_are_left_alone(storage: Storage) -> None:
    marker = write_shard(storage, SHARD)
    storage.write(PATH, orjson.dumps(orjson.loads(storage.read(PATH)) | {"new": 1}))
    found = read_marker(storage, SHARD)
    assert found is not None
    assert found[0] == marker


def test_a_marker_must_name_the_files_of_its_fence(storage: Storage) -> None:
    write_shard(storage, SHARD, fence=2)
    content = orjson.loads(storage.read(PATH))
    storage.write(PATH, orjson.dumps(content | {"fence": 9}))
    found = read_marker(storage, SHARD)
    assert found is not None
    with pytest.raises(AccountingError, match=r"embeddings-9\.parquet"):
        _ = found[0].embeddings
