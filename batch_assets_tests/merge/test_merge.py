import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import AccountingError, NotReady
from batch_assets.merge.checks import check_accounting, check_vectors
from batch_assets.merge.parquet import merge
from batch_assets.merge.publishing import current, open_current, publish
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import DIMENSIONS, write_shard

FINGERPRINT = "f" * 16


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "root"))


def write_three(storage: Storage) -> list[tuple[str, int]]:
    """Three shards with every kind of outcome; (key, planned) of each."""
    kinds = ["eeref", "rrr", "eeeeee"]
    for number, outcomes in enumerate(kinds):
        write_shard(storage, f"g0001-{number:05d}", outcomes, base=100 * number)
    return [(f"g0001-{number:05d}", len(outcomes)) for number, outcomes in enumerate(kinds)]


def merge_and_publish(storage: Storage, shards: list[tuple[str, int]]) -> str:
    result = merge(storage, shards, FINGERPRINT)
    assert check_accounting(storage, result.manifest).passed
    assert check_vectors(storage, result.manifest).passed
    assert publish(storage, result.manifest.version, result.expected_current)
    return result.manifest.version


def read_rows(storage: Storage) -> pl.DataFrame:
    manifest = open_current(storage)
    assert manifest is not None
    return pl.concat([pl.read_parquet(f"{storage.uri}/{manifest.path(part)}") for part in manifest.parts])


def test_a_merge_holds_every_record_in_order(storage: Storage) -> None:
    shards = write_three(storage)
    seen: list[tuple[int, int]] = []
    result = merge(
        storage, shards, FINGERPRINT, metadata={"pipeline": "texts"}, progress=lambda *done: seen.append(done)
    )
    manifest = result.manifest
    assert seen == [(5, 14), (8, 14), (14, 14)]
    assert (manifest.rows, manifest.rejected, manifest.failed, manifest.planned) == (9, 4, 1, 14)
    assert current(storage) is None  # not published yet
    outcome = check_accounting(storage, manifest)
    assert (outcome.passed, outcome.message) == (
        True, "accounting: planned=14 embedded=9 rejected=4 failed=1",
    )  # fmt: skip
    vectors = check_vectors(storage, manifest)
    assert vectors.passed
    assert vectors.metadata["vectors"] == 9
    assert publish(storage, manifest.version, result.expected_current)

    folder = Path(storage.uri) / "merged"
    assert (folder / "CURRENT").read_text() == f"{manifest.version}\n"
    files = [path for path in (folder / manifest.version).rglob("*") if path.is_file()]
    assert sorted(path.relative_to(folder / manifest.version).as_posix() for path in files) == [
        "data/part-00000.parquet", "data/part-00001.parquet", "data/part-00002.parquet",
        "failures.parquet", "manifest.json", "metadata.json",
    ]  # fmt: skip
    rows = read_rows(storage)["source_row"].to_list()
    assert rows == [0, 1, 3, 200, 201, 202, 203, 204, 205]
    failures = pl.read_parquet(folder / manifest.version / "failures.parquet")
    assert failures["source_row"].to_list() == [2, 4, 100, 101, 102]
    told = orjson.loads((folder / manifest.version / "metadata.json").read_bytes())
    assert (told["num_samples"], told["model"], told["pipeline"]) == (9, "tiny", "texts")
    assert told["timestamp"]
    manifest_json = orjson.loads((folder / manifest.version / "manifest.json").read_bytes())
    assert manifest_json["parts"][0].items() >= {"uri": "data/part-00000.parquet", "rows": 3}.items()


def test_parts_are_the_shards_own_bytes(storage: Storage) -> None:
    shards = write_three(storage)
    manifest = merge(storage, shards, FINGERPRINT).manifest
    for part in manifest.parts:
        shard = storage.read(f"shards/{part.shard}/embeddings-1.parquet")
        assert storage.read(manifest.path(part)) == shard
        assert part.sha256 == part.source_sha256


def test_the_same_shards_again_give_the_version_that_is_there(storage: Storage) -> None:
    shards = write_three(storage)
    version = merge_and_publish(storage, shards)
    before = {info.path: info.version for info in storage.list("merged")}
    again = merge(storage, shards, FINGERPRINT)
    assert again.reused
    assert publish(storage, again.manifest.version, again.expected_current)
    assert {info.path: info.version for info in storage.list("merged")} == before
    assert current(storage) == version


def test_a_finished_merge_that_was_not_published_is_used(storage: Storage) -> None:
    shards = write_three(storage)
    first = merge(storage, shards, FINGERPRINT)
    assert merge_and_publish(storage, shards) == first.manifest.version


def test_a_reused_version_must_be_whole(storage: Storage) -> None:
    shards = write_three(storage)
    version = merge_and_publish(storage, shards)
    (Path(storage.uri) / "merged" / version / "data/part-00002.parquet").unlink()
    assert merge_and_publish(storage, shards) != version
    assert len(read_rows(storage)) == 9


def test_a_spoiled_manifest_does_not_stand_in_the_way(storage: Storage) -> None:
    shards = write_three(storage)
    version = merge_and_publish(storage, shards)
    (Path(storage.uri) / "merged" / version / "manifest.json").write_bytes(b"{")
    assert merge_and_publish(storage, shards) > version


def test_another_content_is_another_version(storage: Storage) -> None:
    shards = write_three(storage)
    first = merge_and_publish(storage, shards)
    write_shard(storage, "g0001-00001", "ere", fence=2, base=100)
    second = merge_and_publish(storage, shards)
    assert first < second
    assert read_rows(storage)["source_row"].to_list() == [0, 1, 3, 100, 102, 200, 201, 202, 203, 204, 205]
    assert (Path(storage.uri) / "merged" / first / "manifest.json").exists()  # its readers may go on


def test_missing_and_stale_shards_are_named(storage: Storage) -> None:
    shards = write_three(storage)
    write_shard(storage, "g0001-00002", "eeeeee", fence=2, base=200, fingerprint="0" * 16)
    with pytest.raises(NotReady, match=r"1 shards are not embedded yet \(g0001-00009\).*\(g0001-00002\)"):
        merge(storage, [*shards, ("g0001-00009", 3)], FINGERPRINT)
    with pytest.raises(NotReady, match="no shards to merge"):
        merge(storage, [], FINGERPRINT)
    assert list(storage.list("merged")) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["embeddings-1.parquet", "failures-1.parquet"])
def test_a_changed_shard_file_is_not_merged(storage: Storage, name: str) -> None:
    shards = write_three(storage)
    flip(Path(storage.uri) / "shards" / "g0001-00000" / name)
    with pytest.raises(AccountingError, match=f"shards/g0001-00000/{name}: its bytes have changed"):
        merge(storage, shards, FINGERPRINT)


def test_a_shard_that_does_not_add_up_is_named(storage: Storage) -> None:
    shards = write_three(storage)
    with pytest.raises(
        AccountingError, match=r"shard g0001-00002: 7 records planned, 6 found.*1 records are missing"
    ):
        merge(storage, [*shards[:2], ("g0001-00002", 7)], FINGERPRINT)


def rewrite(path: Path, change) -> None:
    table = pq.read_table(path)
    pq.write_table(change(table), path)


def test_checks_read_the_merged_files(storage: Storage) -> None:
    manifest = merge(storage, write_three(storage), FINGERPRINT).manifest
    part = Path(storage.uri) / manifest.path(manifest.parts[2])
    whole = part.read_bytes()
    rewrite(part, lambda table: table.slice(1))
    outcome = check_accounting(storage, manifest)
    assert not outcome.passed
    assert "part-00002.parquet: holds 5 rows, its manifest says 6" in outcome.message

    part.write_bytes(whole)
    table = pq.read_table(part)
    values = table.column("embedding").combine_chunks().flatten().to_numpy().copy()
    values[3 * DIMENSIONS] = float("nan")
    spoiled = pa.FixedSizeListArray.from_arrays(pa.array(values), type=table.schema.field("embedding").type)
    index = table.schema.names.index("embedding")
    pq.write_table(table.set_column(index, table.schema.field("embedding"), spoiled), part)
    outcome = check_vectors(storage, manifest)
    assert not outcome.passed
    assert "part-00002.parquet: 1 unsound vectors; that of row 3" in outcome.message

    part.unlink()
    assert not check_accounting(storage, manifest).passed
    assert not check_vectors(storage, manifest).passed


def test_of_a_large_version_a_sample_of_vectors_is_read(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_assets.merge.checks.ALL_READ", 100)
    shards = [(f"g0001-{number:05d}", 30) for number in range(8)]
    for number, (key, records) in enumerate(shards):
        write_shard(storage, key, "e" * records, base=100 * number)
    manifest = merge(storage, shards, FINGERPRINT).manifest
    outcome = check_vectors(storage, manifest)
    assert (outcome.passed, outcome.metadata["vectors"], outcome.metadata["vectors_read"]) == (True, 240, 30)

    # What the writers measured counts too: a length that they should have refused.
    outcome = check_vectors(storage, replace(manifest, norms={"min": 0.5, "max": 1.0, "mean": 0.9}))
    assert not outcome.passed
    assert "lengths when written" in outcome.message


def test_only_one_of_two_merges_is_published(storage: Storage) -> None:
    shards = write_three(storage)
    late = merge(storage, shards, FINGERPRINT)
    write_shard(storage, "g0001-00001", "ere", fence=2, base=100)
    quick = merge(storage, shards, FINGERPRINT)
    assert publish(storage, quick.manifest.version, quick.expected_current)
    assert not publish(storage, late.manifest.version, late.expected_current)
    assert current(storage) == quick.manifest.version


def test_only_a_finished_version_is_published(storage: Storage) -> None:
    with pytest.raises(AccountingError, match="only a finished merge is published"):
        publish(storage, "v000001-00000000", None)


@pytest.mark.parametrize("content", [b"", b"latest\n", b"../v000001-00000000", b"\xff"])
def test_a_spoiled_pointer_is_named(storage: Storage, content: bytes) -> None:
    storage.write("merged/CURRENT", content)
    with pytest.raises(AccountingError, match="merged/CURRENT"):
        open_current(storage)


def test_a_pointer_to_nothing_is_named(storage: Storage) -> None:
    storage.write("merged/CURRENT", b"v000009-00000000\n")
    with pytest.raises(AccountingError, match=r"CURRENT .* names v000009-00000000, which has no manifest"):
        open_current(storage)


# Dies when the file named in the environment is to be written (or has been), as a power cut would have it.
KILLED = """
    import os, sys
    from batch_assets.storage import LocalStorage, open_storage
    from batch_assets.merge.parquet import merge
    from batch_assets.merge.publishing import publish

    fatal = os.environ["FATAL"]

    class Dying(LocalStorage):
        def open_output(self, path):
            output = super().open_output(path)
            if path.endswith(fatal):
                output.write(b"PAR1 half a file")
                output.flush()
                os._exit(9)
            return output
        def write(self, path, data):
            if path.endswith(fatal):
                os._exit(9)
            super().write(path, data)
        def create(self, path, data):
            if path.endswith(fatal):
                os._exit(9)
            return super().create(path, data)

    shards = [(f"g0001-{n:05d}", size) for n, size in enumerate([5, 3, 6])]
    storage = Dying(sys.argv[1])
    result = merge(storage, shards, "f" * 16)
    publish(storage, result.manifest.version, result.expected_current)
"""


@pytest.mark.parametrize(
    "fatal",
    [
        "part-00000.parquet",
        "part-00002.parquet",
        "failures.parquet",
        "metadata.json",
        "manifest.json",
        "CURRENT",
    ],
)
def test_a_merge_killed_at_any_file_is_done_again(storage: Storage, fatal: str) -> None:
    shards = write_three(storage)
    died = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), storage.uri],
        env={**os.environ, "FATAL": fatal},
        check=False,
    )
    assert died.returncode == 9
    assert current(storage) is None
    version = merge_and_publish(storage, shards)
    assert len(read_rows(storage)) == 9
    left = {info.path.split("/")[1] for info in storage.list("merged")}
    assert left == {"CURRENT", version}  # what the dead one left is gone


def test_a_file_of_other_columns_than_committed_is_named(storage: Storage) -> None:
    shards = write_three(storage)
    path = Path(storage.uri) / "shards/g0001-00000/shard.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"columns": {"title": "string"}}))
    others = [("g0001-00001", 3)]
    for number, (key, _) in enumerate([("g0001-00001", 3), ("g0001-00002", 6)]):
        kinds = ["rrr", "eeeeee"][number]
        write_shard(storage, key, kinds, fence=2, base=100 + 100 * number, columns={"title": "string"})
    with pytest.raises(AccountingError, match=r"g0001-00000/embeddings-1\.parquet: holds 3 rows of"):
        merge(storage, [shards[0], *others], FINGERPRINT)
