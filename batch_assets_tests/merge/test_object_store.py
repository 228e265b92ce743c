"""A life on S3 (a real server on this machine): write, commit, merge, check, publish, search, verify."""

from collections.abc import Iterator

import numpy as np
import pytest

from batch_assets.embeddings.accounting import account_shard
from batch_assets.embeddings.marker import read_marker
from batch_assets.embeddings.shard_writer import ShardWriter
from batch_assets.errors import AccountingError
from batch_assets.merge.checks import check_accounting, check_vectors
from batch_assets.merge.parquet import Grouping, merge
from batch_assets.merge.publishing import current, publish
from batch_assets.merge.search import search
from batch_assets.merge.verification import verify
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import make_outcomes, unit_vectors, write_shard
from batch_assets_tests.merge.test_verification import KINDS, LINE, merge_and_publish, plan


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def storage(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Storage:
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bucket")
    return open_storage(f"s3://bucket/{request.node.name}")


def test_a_whole_life_in_a_bucket(storage: Storage) -> None:
    shards = plan(storage, 1, [len(kinds) for kinds in KINDS])
    for number, kinds in enumerate(KINDS):
        marker = write_shard(storage, shards[number].key, kinds, base=100 * number)
        account_shard(storage, len(kinds), marker)
    result = merge(storage, [(shard.key, shard.records) for shard in shards], "f" * 16)
    assert check_accounting(storage, result.manifest).message == LINE
    outcome = check_vectors(storage, result.manifest)
    assert (outcome.passed, outcome.metadata["vectors"]) == (True, 9)
    assert publish(storage, result.manifest.version, result.expected_current)
    part = result.manifest.parts[2]
    assert storage.read(result.manifest.path(part)) == storage.read(
        f"shards/{part.shard}/embeddings-1.parquet"
    )

    assert merge(storage, [(shard.key, shard.records) for shard in shards], "f" * 16).reused
    hits = search(storage, unit_vectors([203])[0], 2)
    assert hits[0].columns["source_row"] == 203
    assert np.isclose(hits[0].score, 1)
    report = verify(storage)
    assert (report.problems, report.accounting.line()) == ([], LINE)

    data = bytearray(storage.read(result.manifest.path(part)))
    data[100] ^= 1
    storage.write(result.manifest.path(part), bytes(data))
    assert "part-00002.parquet: its bytes have changed" in verify(storage).problems[0]


def test_a_marker_is_replaced_only_at_the_version_seen(storage: Storage) -> None:
    write_shard(storage, "g0001-00000")
    write_shard(storage, "g0001-00000", "rr", fence=2)
    found = read_marker(storage, "g0001-00000")
    assert found is not None
    assert found[0].fence == 2


def test_two_generations_of_columns_are_cast_in_a_bucket(storage: Storage) -> None:
    shards = plan(storage, 1, [2, 2])
    write_shard(storage, shards[0].key, "ee", columns={"a": "int64"}, values={"a": [1, 2]})
    write_shard(storage, shards[1].key, "ee", base=100, columns={"a": "string"}, values={"a": ["x", None]})
    assert merge_and_publish(storage, shards) == current(storage)
    assert verify(storage).problems == []
    values = {hit.columns["source_row"]: hit.columns["a"] for hit in search(storage, unit_vectors([0])[0], 4)}
    assert values == {0: "1", 1: "2", 100: '"x"', 101: None}


def test_groups_in_a_bucket(storage: Storage) -> None:
    shards = plan(storage, 1, [3, 2])
    values = [["a/b", None, "a/b"], ["c", None]]
    for number, (shard, some) in enumerate(zip(shards, values, strict=True)):
        kinds, columns = "e" * len(some), {"a": "string"}
        write_shard(storage, shard.key, kinds, base=100 * number, columns=columns, values={"a": some})
    pairs = [(shard.key, shard.records) for shard in shards]
    manifest = merge(storage, pairs, "f" * 16, grouping=Grouping("a")).manifest
    assert publish(storage, manifest.version, None)
    assert [(group.name, group.rows) for group in manifest.groups] == [("a/b", 2), (None, 2), ("c", 1)]
    assert verify(storage).problems == []
    assert len(search(storage, unit_vectors([0])[0], 9)) == 5


def test_a_lost_object_is_named(storage: Storage) -> None:
    write_shard(storage, "g0001-00000")
    storage.delete(["shards/g0001-00000/embeddings-1.parquet"])
    with pytest.raises(AccountingError, match=r"embeddings-1\.parquet: the file is missing"):
        merge(storage, [("g0001-00000", 4)], "f" * 16)


def test_an_aborted_shard_leaves_nothing(storage: Storage) -> None:
    writer = ShardWriter(storage, "g0001-00000", 1, {}, "float32")
    writer.write(make_outcomes("e" * 9000))
    writer.abort()
    assert list(storage.list()) == []
