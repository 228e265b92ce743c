import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.embeddings.marker import commit_marker, read_marker
from batch_assets.embeddings.parquet_files import DataFile
from batch_assets.embeddings.shard_writer import ShardWriter
from batch_assets.merge.parquet import merge
from batch_assets.merge.publishing import publish
from batch_assets.merge.verification import verify
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.plan_files import write_plan
from batch_assets.sources.base import Segment
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import FILE, make_outcomes, marker_of, write_shard

KINDS = ["eeref", "rr", "eeeeee"]  # outcomes of three shards
LINE = "accounting: planned=13 embedded=9 rejected=3 failed=1"


def plan(
    storage: Storage, generation: int, sizes: list[int], superseded: tuple[str, ...] = ()
) -> list[Shard]:
    """Shard number n begins at row 100 n of one file."""
    shards = [
        Shard(
            f"g{generation:04d}-{number:05d}",
            (Segment(FILE, "1", 100 * number, 100 * number + size, 0, 10 * size, size),),
        )
        for number, size in enumerate(sizes)
    ]
    summary = PlanSummary(
        generation=generation,
        source_uri="texts",
        format="jsonl",
        columns={},
        shards=len(shards),
        records=sum(sizes),
        bytes=10 * sum(sizes),
        files=(),
        created="2026-01-01T00:00:00+00:00",
        base_uri="texts",
        max_record_bytes=1000,
        superseded=superseded,
    )
    assert write_plan(storage, summary, shards)
    return shards


def merge_and_publish(storage: Storage, shards: list[Shard]) -> str:
    result = merge(storage, [(shard.key, shard.records) for shard in shards], "f" * 16)
    assert publish(storage, result.manifest.version, result.expected_current)
    return result.manifest.version


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with three shards, merged and published."""
    root = tmp_path_factory.mktemp("sound") / "root"
    storage = open_storage(str(root))
    shards = plan(storage, 1, [len(kinds) for kinds in KINDS])
    for number, kinds in enumerate(KINDS):
        write_shard(storage, shards[number].key, kinds, base=100 * number)
    merge_and_publish(storage, shards)
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "root"))


def test_a_sound_root_is_found_sound(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = verify(str(root), progress=lambda *done: seen.append(done))
    assert (report.problems, report.notes, report.ok) == ([], [], True)
    assert report.accounting.line() == LINE
    assert (report.planned_shards, report.committed_shards) == (3, 3)
    assert report.version is not None
    assert seen[-1] == (26, 26)
    assert seen == sorted(seen)


def version_folder(root: Path) -> Path:
    return root / "merged" / (root / "merged" / "CURRENT").read_text().strip()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def remove_row(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(1), path)


def edit(path: Path, change: Callable[[dict], None]) -> None:
    content = orjson.loads(path.read_bytes())
    change(content)
    path.write_bytes(orjson.dumps(content))


def commit_what_is_there(root: Path, shard: str, kinds: str) -> None:
    """Make the marker agree with the shard's files, as a faulty or lying writer would."""
    storage = open_storage(str(root))
    found = read_marker(storage, shard)
    assert found is not None
    files = []
    for file in found[0].files:
        data = storage.read(file.path)
        rows = pq.read_metadata(pa.BufferReader(data)).num_rows
        files.append(DataFile(file.path, rows, len(data), hashlib.sha256(data).hexdigest()))
    counts = {
        "planned": len(kinds),
        **{name: kinds.count(name[0]) for name in ("embedded", "rejected", "failed")},
    }
    assert commit_marker(storage, replace(found[0], files=files, counts=counts), found[1])


def lie_about_a_removed_row(root: Path) -> None:
    remove_row(root / "shards/g0001-00002/embeddings-1.parquet")
    commit_what_is_there(root, "g0001-00002", "eeeee")


def one_record_twice(root: Path) -> None:
    path = root / "shards/g0001-00002/embeddings-1.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table.slice(0, 2), table.slice(1, 1), table.slice(3)]), path)
    commit_what_is_there(root, "g0001-00002", "eeeeee")


def rows_out_of_order(root: Path) -> None:
    path = root / "shards/g0001-00002/embeddings-1.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take([1, 0, 2, 3, 4, 5]), path)
    commit_what_is_there(root, "g0001-00002", "eeeeee")


def records_of_another_file(root: Path) -> None:
    write_shard(open_storage(str(root)), "g0001-00001", "rr", base=100, file="other.jsonl", fence=2)


def records_of_another_stretch(root: Path) -> None:
    write_shard(open_storage(str(root)), "g0001-00001", "rr", base=150, fence=2)


def repeat_a_part(root: Path) -> None:
    edit(
        version_folder(root) / "manifest.json",
        lambda manifest: manifest["parts"].append(manifest["parts"][0]),
    )


def copy_a_part_over_another(root: Path) -> None:
    folder = version_folder(root)
    shutil.copy(folder / "data/part-00000.parquet", folder / "data/part-00002.parquet")


def drop_a_part(root: Path) -> None:
    def drop(manifest: dict) -> None:
        part = manifest["parts"].pop()
        manifest["rows"] -= part["rows"]
        manifest["planned"] -= part["planned"]

    edit(version_folder(root) / "manifest.json", drop)
    (version_folder(root) / "data/part-00002.parquet").unlink()


# What is done to a sound root, and what must be said of it.
TAMPERINGS = {
    "embeddings deleted": (
        lambda root: (root / "shards/g0001-00000/embeddings-1.parquet").unlink(),
        "shards/g0001-00000/embeddings-1.parquet: the file is missing",
    ),
    "failures deleted": (
        lambda root: (root / "shards/g0001-00001/failures-1.parquet").unlink(),
        "shards/g0001-00001/failures-1.parquet: the file is missing",
    ),
    "embeddings cut": (
        lambda root: cut(root / "shards/g0001-00002/embeddings-1.parquet"),
        "shards/g0001-00002/embeddings-1.parquet: has",
    ),
    "byte flipped in a shard": (
        lambda root: flip(root / "shards/g0001-00002/embeddings-1.parquet"),
        "shards/g0001-00002/embeddings-1.parquet: its bytes have changed",
    ),
    "marker spoiled": (
        lambda root: (root / "shards/g0001-00002/shard.json").write_bytes(b"{"),
        "shards/g0001-00002/shard.json: not a commit marker",
    ),
    "marker deleted": (
        lambda root: (root / "shards/g0001-00002/shard.json").unlink(),
        "shards/g0001-00002/shard.json: missing, though v000001",
    ),
    "shard deleted": (
        lambda root: shutil.rmtree(root / "shards/g0001-00001"),
        "shards/g0001-00001/shard.json: missing, though v000001",
    ),
    "row removed": (
        lambda root: remove_row(root / "shards/g0001-00000/embeddings-1.parquet"),
        "shards/g0001-00000/embeddings-1.parquet: has",
    ),
    "row removed and the marker too": (
        lie_about_a_removed_row,
        "shard g0001-00002: 6 records planned, 5 found",
    ),
    "record twice": (one_record_twice, "shard g0001-00002: part.jsonl row 201 is there twice"),
    "rows out of order": (rows_out_of_order, "embeddings-1.parquet: rows are not in source order"),
    "foreign records": (records_of_another_file, "has rows of other.jsonl, which its shard does not hold"),
    "records of another stretch": (
        records_of_another_stretch,
        "shard g0001-00001: 2 records of part.jsonl rows 100 to 101 are planned, 0 are in its files",
    ),
    "shard of no plan": (
        lambda root: write_shard(open_storage(str(root)), "g0002-00000"),
        "shards/g0002-00000/shard.json: commits a shard that no plan",
    ),
    "plan deleted": (lambda root: shutil.rmtree(root / "plan"), "there is no plan"),
    "plan spoiled": (lambda root: cut(root / "plan/g0001.parquet"), "plan/g0001.parquet: is not a plan"),
    "part deleted": (
        lambda root: (version_folder(root) / "data/part-00001.parquet").unlink(),
        "part-00001.parquet: the file is missing",
    ),
    "part cut": (lambda root: cut(version_folder(root) / "data/part-00000.parquet"), "part-00000.parquet"),
    "byte flipped in a part": (
        lambda root: flip(version_folder(root) / "data/part-00002.parquet"),
        "part-00002.parquet: its bytes have changed",
    ),
    "row removed from a part": (
        lambda root: remove_row(version_folder(root) / "data/part-00002.parquet"),
        "part-00002.parquet",
    ),
    "merged failures cut": (
        lambda root: remove_row(version_folder(root) / "failures.parquet"),
        "failures.parquet: has",
    ),
    "part listed twice": (
        repeat_a_part,
        "manifest.json: not a manifest (rows: 9, but its parts have 12 together)",
    ),
    "shard listed twice": (
        lambda root: edit(
            version_folder(root) / "manifest.json",
            lambda manifest: manifest["parts"][1].update(shard=manifest["parts"][0]["shard"]),
        ),
        "names shard g0001-00000 2 times",
    ),
    "part copied over another": (copy_a_part_over_another, "part-00002.parquet: has"),
    "part too many": (
        lambda root: shutil.copy(
            version_folder(root) / "data/part-00000.parquet", version_folder(root) / "data/part-00003.parquet"
        ),
        "part-00003.parquet: the manifest does not name this file",
    ),
    "part left out": (drop_a_part, "its digest is not that of the shards it names"),
    "manifest counts changed": (
        lambda root: edit(
            version_folder(root) / "manifest.json", lambda manifest: manifest.update(rejected=4)
        ),
        "embedded=9 rejected=4 failed=1; its files and the plan say accounting: planned=13 embedded=9",
    ),
    "manifest deleted": (lambda root: (version_folder(root) / "manifest.json").unlink(), "has no manifest"),
    "pointer to nothing": (
        lambda root: (root / "merged/CURRENT").write_text("v000007-00000000\n"),
        "names v000007-00000000, which has no manifest",
    ),
    "pointer spoiled": (lambda root: (root / "merged/CURRENT").write_text(""), "which is no version name"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_found_and_named(root: Path, name: str) -> None:
    tamper, said = TAMPERINGS[name]
    tamper(root)
    report = verify(str(root))
    assert not report.ok
    assert any(said in problem for problem in report.problems), report.problems


def test_half_written_files_are_no_error(root: Path) -> None:
    folder = root / "shards/g0001-00000"
    (folder / "embeddings-9.parquet").write_bytes(b"PAR1 half")
    (folder / ".failures-9.parquet.tmp").write_bytes(b"")
    assert verify(str(root)).problems == []


def test_an_unsound_vector_in_a_shard_is_found(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    (shard,) = plan(storage, 1, [3])
    writer = ShardWriter(storage, shard.key, 1, {}, "float32", normalized=False)
    outcomes = make_outcomes("eee")
    outcomes.vectors = outcomes.vectors * 2
    writer.write(outcomes)
    marker = replace(marker_of(writer.close(), shard.key, 1, 3), normalized=True)
    assert commit_marker(storage, marker, None)
    assert "that of row 0 has length 2.0" in verify(storage).problems[0]


def test_shards_not_embedded_yet_are_told(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    shards = plan(storage, 1, [5, 2, 6])
    write_shard(storage, shards[0].key, KINDS[0])
    report = verify(storage)
    assert report.problems == [
        "not embedded yet: 8 records of 2 shards (g0001-00001, g0001-00002); run the pipeline to go on"
    ]
    assert report.accounting.line() == "accounting: planned=13 embedded=3 rejected=1 failed=1"

    merge_and_publish(storage, shards[:1])  # merge_when: any
    report = verify(storage)
    assert report.problems == []
    assert report.notes == ["not embedded yet: 8 records of 2 shards (g0001-00001, g0001-00002)"]
    assert report.accounting.line() == "accounting: planned=5 embedded=3 rejected=1 failed=1"


def test_what_is_newer_than_the_published_version_is_a_note(root: Path) -> None:
    storage = open_storage(str(root))
    plan(storage, 2, [4], superseded=("g0001-00001",))
    write_shard(storage, "g0002-00000", "eeee")
    write_shard(storage, "g0001-00000", KINDS[0], fence=2)
    changed = write_shard(storage, "g0001-00002", "eeeeer", base=200, fence=2)
    report = verify(storage)
    assert report.problems == []
    assert report.accounting.line() == LINE
    assert len(report.notes) == 3
    assert f"embedded again since {report.version} was merged: g0001-00002" in report.notes[0]
    assert f"superseded by a later plan but in {report.version}: g0001-00001" in report.notes[1]
    assert f"embedded but not in {report.version}" in report.notes[2]

    current_shards = [
        Shard(key, (Segment(FILE, "1", 0, records, 0, 0, records),))
        for key, records in [("g0001-00000", 5), (changed.shard, 6), ("g0002-00000", 4)]
    ]
    merge_and_publish(storage, current_shards)
    report = verify(storage)
    assert (report.problems, report.notes) == ([], [])
    assert report.accounting.line() == "accounting: planned=15 embedded=12 rejected=2 failed=1"
