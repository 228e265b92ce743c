"""`batch_assets.load`: the published version of a root or a pipeline, or another one, as tables and as a matrix."""

import contextlib
import shutil
import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import batch_assets
from batch_assets.errors import AccountingError, ConfigurationError, NotReady
from batch_assets.ledger import migrations
from batch_assets.ledger.ledger import Ledger
from batch_assets.merge.parquet import Grouping, merge
from batch_assets.merge.publishing import publish
from batch_assets.published import Published
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import DIMENSIONS, unit_vectors, write_shard
from batch_assets_tests.merge.old_roots import make_old
from batch_assets_tests.object_store import s3_server, use_s3

KINDS = ["eeref", "rrr", "eeeeee"]
ROWS = [0, 1, 3, 200, 201, 202, 203, 204, 205]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "root"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a ledger."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BATCH_ASSETS_LEDGER_URL", raising=False)
    return tmp_path / "home"


def publish_shards(
    storage: Storage, kinds: list[str] = KINDS, grouping: Grouping | None = None, fence: int = 1, **shard: Any
) -> str:
    """A published version of shards with these outcomes; its name."""
    shards = [(f"g0001-{number:05d}", len(outcomes)) for number, outcomes in enumerate(kinds)]
    for number, (key, records) in enumerate(shards):
        valid = records - kinds[number].count("r")
        values = {"topic": (["news", "sport"] * valid)[:valid]}
        write_shard(
            storage, key, kinds[number], base=100 * number, fence=fence, columns={"topic": "string"}, values=values,
            **shard,
        )  # fmt: skip
    merged = merge(storage, shards, "f" * 16, grouping=grouping)
    assert publish(storage, merged.manifest.version, merged.expected_current)
    return merged.manifest.version


def assert_read(found: Published, rows: list[int]) -> None:
    """All three ways give these source rows, in order, each with its own vector."""
    table, frame = found.to_arrow(), found.to_polars()
    assert found.rows == table.num_rows == frame.height == len(rows)
    assert table.column("source_row").to_pylist() == frame["source_row"].to_list() == rows
    assert frame.schema["embedding"] == pl.Array(pl.Float32, DIMENSIONS)
    for matrix in (found.to_numpy(), frame["embedding"].to_numpy()):
        assert matrix.dtype == np.float32
        assert np.array_equal(matrix, unit_vectors(rows))


def test_the_published_version_of_a_root(storage: Storage) -> None:
    version = publish_shards(storage)
    for root in (storage.uri, Path(storage.uri), f"file://{storage.uri}/"):
        found = batch_assets.load(root)
        assert (found.version, found.root, found.dimensions) == (version, storage.uri, DIMENSIONS)
        assert_read(found, ROWS)
    assert found.uri == f"{storage.uri}/merged/{version}/data"
    assert pl.read_parquet(found.uri).equals(found.to_polars())
    assert pl.read_parquet(found.files).equals(found.to_polars())
    assert repr(found) == f"Published(root={storage.uri!r}, version={version!r}, rows=9)"


def test_a_folder_that_exists_is_a_root_also_without_a_slash(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_shards(storage)
    monkeypatch.chdir(Path(storage.uri).parent)
    assert_read(batch_assets.load("root"), ROWS)


def test_groups_come_in_the_manifests_order(storage: Storage) -> None:
    publish_shards(storage, grouping=Grouping("topic"))
    assert_read(batch_assets.load(storage.uri), [0, 3, 200, 202, 204, 1, 201, 203, 205])


@pytest.mark.parametrize("grouping", [None, Grouping("topic")])
def test_a_root_of_before_is_read_by_its_manifest(storage: Storage, grouping: Grouping | None) -> None:
    version = publish_shards(storage, grouping=grouping)
    rows = batch_assets.load(storage.uri).to_arrow().column("source_row").to_pylist()
    make_old(Path(storage.uri))
    found = batch_assets.load(storage.uri)
    assert_read(found, rows)
    assert found.uri == f"{storage.uri}/merged/{version}"
    assert pl.read_parquet(found.files)["source_row"].to_list() == rows


def test_what_was_loaded_stays_what_it_was(storage: Storage) -> None:
    first = publish_shards(storage)
    before = batch_assets.load(storage.uri)
    second = publish_shards(storage, ["eee"], fence=2)
    assert_read(before, ROWS)
    assert_read(batch_assets.load(storage.uri), [0, 1, 2])
    assert_read(batch_assets.load(storage.uri, first), ROWS)
    assert batch_assets.load(storage.uri, version=second).version == second


def test_half_precision_stays_what_it_is(storage: Storage) -> None:
    publish_shards(storage, vector_dtype="float16")
    found = batch_assets.load(storage.uri)
    assert found.to_numpy().dtype == np.float16
    assert np.array_equal(found.to_numpy(), unit_vectors(ROWS).astype(np.float16))
    assert found.to_arrow().column("embedding").type.value_type == pa.float16()
    assert found.to_polars()["embedding"].to_numpy().dtype == np.float16


def test_answers_are_read_and_have_no_matrix(storage: Storage) -> None:
    publish_shards(storage, task="generate")
    found = batch_assets.load(storage.uri)
    assert found.to_polars()["response"].to_list()[:3] == [
        "answer to id-0",
        "answer to id-1",
        "answer to id-3",
    ]
    assert found.to_arrow().num_rows == 9
    with pytest.raises(ConfigurationError, match=r"answers in place of vectors.*column `response`"):
        found.to_numpy()


def test_a_version_without_a_row_is_empty(storage: Storage) -> None:
    publish_shards(storage, ["rr"])
    assert_read(batch_assets.load(storage.uri), [])


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with s3_server() as endpoint:
        yield use_s3(endpoint, monkeypatch)


def test_an_object_store(bucket: Any) -> None:
    version = publish_shards(open_storage("s3://bucket/embeddings"))
    found = batch_assets.load("s3://bucket/embeddings/")
    assert found.uri == f"s3://bucket/embeddings/merged/{version}/data"
    assert_read(found, ROWS)
    bucket.delete_object(Bucket="bucket", Key=f"embeddings/merged/{version}/data/part-00002.parquet")
    with pytest.raises(
        AccountingError, match=rf"s3://bucket/.*part-00002\.parquet: is gone, though {version}"
    ):
        found.to_numpy()


def test_a_pipeline_is_found_by_its_name(storage: Storage, home: Path) -> None:
    publish_shards(storage)
    ledger = Ledger.open(f"sqlite:///{home}/batch_assets/ledger.db")
    ledger.attach("texts", storage.uri, 1)
    ledger.attach("others", f"{storage.uri}-others", 1)
    assert_read(batch_assets.load("texts"), ROWS)
    with pytest.raises(NotReady, match=r"nothing is published under .*root-others yet"):
        batch_assets.load("others")
    with pytest.raises(ConfigurationError, match=r"no pipeline 'text' .*it knows others, texts.*output root"):
        batch_assets.load("text")
    ledger.dispose()


@pytest.mark.parametrize("in_use", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param("DELETE FROM ledger_migrations WHERE name = (SELECT max(name) FROM ledger_migrations)", id="old"),
        pytest.param("INSERT INTO ledger_migrations VALUES ('m999_of_tomorrow')", id="new"),
    ],
)  # fmt: skip
def test_a_ledger_of_another_version_is_only_read(
    storage: Storage, home: Path, change: str, in_use: bool
) -> None:
    publish_shards(storage)
    file = home / "batch_assets" / "ledger.db"
    ledger = Ledger.open(f"sqlite:///{file}")
    ledger.attach("texts", storage.uri, 1)
    ledger.dispose()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute(change)
        connection.commit()
        if not in_use:
            connection.close()
        before = file.read_bytes()
        assert_read(batch_assets.load("texts"), ROWS)
        assert file.read_bytes() == before
    with contextlib.closing(sqlite3.connect(file)) as connection:
        steps = {name for (name,) in connection.execute("SELECT name FROM ledger_migrations")}
    last = migrations.MIGRATIONS[-1].__name__
    assert (last in steps, "m999_of_tomorrow" in steps) == (("INSERT" in change,) * 2)


def test_an_empty_ledger_stays_empty(home: Path) -> None:
    file = home / "batch_assets" / "ledger.db"
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(ConfigurationError, match=r"no pipeline 'texts' .*it knows none.*output root"):
        batch_assets.load("texts")
    assert [(found.name, found.stat().st_size) for found in file.parent.iterdir()] == [("ledger.db", 0)]


def test_a_ledger_that_is_none_is_named(home: Path) -> None:
    file = home / "batch_assets" / "ledger.db"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigurationError, match=r"ledger sqlite:.*cannot be opened: file is not a database"):
        batch_assets.load("texts")


def test_where_there_is_no_ledger_none_is_made(home: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no pipeline 'texts' .*it knows none.*output root"):
        batch_assets.load("texts")
    assert not home.exists()


def test_nothing_published_yet(storage: Storage) -> None:
    with pytest.raises(NotReady, match=r"nothing is published under .*root yet"):
        batch_assets.load(storage.uri)
    assert not Path(storage.uri).exists()


@pytest.mark.parametrize("wrong", ["v000007-00000000", "latest", "../x", ""])
def test_a_version_that_does_not_exist(storage: Storage, wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="there is none at all"):
        batch_assets.load(storage.uri, wrong)
    first, second = publish_shards(storage), publish_shards(storage, ["eee"], fence=2)
    with pytest.raises(ConfigurationError) as caught:
        batch_assets.load(storage.uri, wrong)
    assert f"there is no version {wrong!r} under {storage.uri} (there are {first}, {second})" in str(
        caught.value
    )


def test_of_many_versions_the_newest_are_named(storage: Storage) -> None:
    versions = [publish_shards(storage, ["e" * number], fence=number) for number in range(1, 13)]
    with pytest.raises(ConfigurationError) as caught:
        batch_assets.load(storage.uri, "v000099-00000000")
    assert f"(there are 2 older ones, {', '.join(versions[2:])})" in str(caught.value)


@pytest.mark.parametrize("read", ["to_polars", "to_arrow", "to_numpy"])
def test_files_that_go_while_they_are_read(storage: Storage, read: str) -> None:
    version = publish_shards(storage)
    found = batch_assets.load(storage.uri)
    shutil.rmtree(Path(storage.uri) / "merged" / version)
    with pytest.raises(
        AccountingError, match=r"is gone.*retention.*call batch_assets\.load again, or name another"
    ):
        getattr(found, read)()


@pytest.mark.parametrize("read", ["to_polars", "to_arrow", "to_numpy"])
def test_a_part_with_other_rows_is_named(storage: Storage, read: str) -> None:
    publish_shards(storage)
    found = batch_assets.load(storage.uri)
    shutil.copy(found.files[0], found.files[2])
    with pytest.raises(AccountingError, match=r"part-00002\.parquet: holds 3 rows, its manifest says 6"):
        getattr(found, read)()


@pytest.mark.parametrize("read", ["to_polars", "to_arrow", "to_numpy"])
def test_a_part_with_a_damaged_footer_is_named(storage: Storage, read: str) -> None:
    publish_shards(storage)
    found = batch_assets.load(storage.uri)
    file = Path(found.files[2])
    content = file.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    at = content.index(b"topic", footer)
    file.write_bytes(content[:at] + b"\xf4" + content[at + 1 :])  # a column's name that is no UTF-8
    with pytest.raises(AccountingError, match=r"part-00002\.parquet: not a whole Parquet file"):
        getattr(found, read)()


def test_no_more_than_one_copy_more_is_in_memory(storage: Storage) -> None:
    shards = [(f"g0001-{number:05d}", 2048) for number in range(16)]
    for key, records in shards:
        write_shard(storage, key, "e" * records, dimensions=256)
    merged = merge(storage, shards, "f" * 16)
    assert publish(storage, merged.manifest.version, None)
    found, usual = batch_assets.load(storage.uri), pa.default_memory_pool()
    peaks: dict[str, int] = {}
    for read in ("to_arrow", "to_polars", "to_numpy"):
        watched = pa.proxy_memory_pool(usual)
        pa.set_memory_pool(watched)
        tracemalloc.start()
        try:
            result = getattr(found, read)()
            peaks[read] = tracemalloc.get_traced_memory()[1] + (watched.max_memory() or 0)
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(usual)
        del result
    vectors = 16 * 2048 * 256 * 4
    # At its end each is one copy; the files that are being read at the same time are the rest.
    assert {read: peak / vectors for read, peak in peaks.items() if not vectors <= peak <= 3 * vectors} == {}
