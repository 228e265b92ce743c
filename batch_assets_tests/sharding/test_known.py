"""What a round knows of earlier ones: the same with a snapshot as by all plans, and by a bounded number of reads."""

import random
from pathlib import Path

import pytest

from batch_assets import paths
from batch_assets.sharding import known as module
from batch_assets.sharding.known import KnownSource, read_known, remember_known
from batch_assets.sharding.plan_files import write_plan
from batch_assets.sharding.planner import plan_generation
from batch_assets.storage.local import LocalStorage
from batch_assets_tests.sharding.planning import settings_of, write_lines

APART = 5


class CountedStorage(LocalStorage):
    """Notes which files are read."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.reads: list[str] = []

    def read(self, path: str) -> bytes:
        self.reads.append(path)
        return super().read(path)


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GENERATIONS_APART", APART)


def plan_round(folder: Path, *, replace: bool = False, limit: int | None = None) -> CountedStorage:
    """One round as the planner goes through it; the storage tells what was read."""
    root = CountedStorage(str(folder / "root"))
    settings = settings_of(folder / "src", folder / "root", {"records": 2}, limit=limit)
    result = plan_generation(settings, root, replace=replace)
    read = root.reads[:]
    if result.changes:
        write_plan(root, result.summary, result.shards)
        remember_known(root, result.summary.base_uri, result.summary.generation)
    root.reads = read
    return root


def both(folder: Path) -> tuple[KnownSource, KnownSource]:
    root, uri = LocalStorage(str(folder / "root")), str(folder / "src")
    return read_known(root, uri), read_known(root, uri, with_shards=False)


@pytest.mark.parametrize("seed", range(5))
def test_a_snapshot_says_what_all_plans_say(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    write_lines(tmp_path / "src/always.jsonl", ['{"text": "a"}'])
    names: list[str] = []
    with_snapshot = 0
    for number in range(23):
        write_lines(tmp_path / f"src/{number:03d}.jsonl", ['{"text": "a"}'] * chance.randint(0, 3) or [""])
        names.append(f"{number:03d}.jsonl")
        replace = chance.random() < 0.15
        if replace:
            gone = names.pop(chance.randrange(len(names)))
            (tmp_path / "src" / gone).unlink()
        # A limit may end a round inside a file, and the next one goes on there.
        plan_round(tmp_path, replace=replace, limit=chance.choice([None, None, 5, 12]))
        whole, light = both(tmp_path)
        assert light.files == whole.files
        assert (light.generation, light.records, light.columns) == (
            whole.generation,
            whole.records,
            whole.columns,
        )
        with_snapshot += light.snapshot > 0
    assert with_snapshot


def test_a_round_reads_few_plans_however_many_there_are(tmp_path: Path) -> None:
    for number in range(4 * APART):
        write_lines(tmp_path / f"src/{number:03d}.jsonl", ['{"text": "a"}'])
        root = plan_round(tmp_path)
        assert len(root.reads) <= APART + 2
    assert len([path for path in root.list("plan") if path.path.startswith("plan/known-")]) == 1
    nothing_new = plan_round(tmp_path)
    assert len(nothing_new.reads) <= APART + 2


def test_a_damaged_snapshot_is_not_believed(tmp_path: Path) -> None:
    for number in range(APART):
        write_lines(tmp_path / f"src/{number:03d}.jsonl", ['{"text": "a"}'])
        plan_round(tmp_path)
    snapshot = tmp_path / "root" / paths.plan_snapshot(str(tmp_path / "src"))
    whole, light = both(tmp_path)
    assert light.snapshot == APART
    content, chance = snapshot.read_bytes(), random.Random(7)
    for _ in range(200):
        place = chance.randrange(len(content))
        damaged = bytearray(content)
        damaged[place] ^= 1 << chance.randrange(8)
        snapshot.write_bytes(damaged)
        light = both(tmp_path)[1]
        assert (light.files, light.records) == (whole.files, whole.records)


def test_a_snapshot_of_other_plans_is_not_believed(tmp_path: Path) -> None:
    """Plans were lost, and made anew for other files: the snapshot is of those before."""
    for number in range(APART):
        write_lines(tmp_path / f"src/{number:03d}.jsonl", ['{"text": "a"}'])
        plan_round(tmp_path)
    assert both(tmp_path)[1].snapshot == APART
    for generation in (APART - 1, APART):
        for file in (paths.plan(generation), paths.plan_summary(generation)):
            (tmp_path / "root" / file).unlink()
    (tmp_path / "src/003.jsonl").rename(tmp_path / "later")
    for name in ("100", "101"):
        write_lines(tmp_path / f"src/{name}.jsonl", ['{"text": "b"}'] * 2)
        plan_round(tmp_path)
    (tmp_path / "later").rename(tmp_path / "src/003.jsonl")
    for number in range(APART):
        write_lines(tmp_path / f"src/2{number:02d}.jsonl", ['{"text": "c"}'])
        plan_round(tmp_path)
    whole, light = both(tmp_path)
    assert light.snapshot == 2 * APART
    assert light.files == whole.files
    assert sorted(light.files) == sorted(path.name for path in (tmp_path / "src").iterdir())


@pytest.mark.parametrize("content", [b"", b"mine", b"PAR1"])
def test_without_a_snapshot_that_can_be_read_the_plans_are(tmp_path: Path, content: bytes) -> None:
    for number in range(2 * APART):
        write_lines(tmp_path / f"src/{number:03d}.jsonl", ['{"text": "a"}'])
        plan_round(tmp_path)
    snapshot = tmp_path / "root" / paths.plan_snapshot(str(tmp_path / "src"))
    before = both(tmp_path)[1]
    assert before.snapshot == 2 * APART
    snapshot.write_bytes(content)
    after = both(tmp_path)[1]
    assert (after.files, after.records, after.snapshot) == (before.files, before.records, 0)
    for number in range(2 * APART, 3 * APART):
        write_lines(tmp_path / f"src/{number:03d}.jsonl", ['{"text": "a"}'])
        plan_round(tmp_path)
    assert snapshot.read_bytes() == content  # somebody else's is not replaced
    assert both(tmp_path)[1].records == 3 * APART


def test_each_source_of_a_root_has_its_own(tmp_path: Path) -> None:
    for number in range(APART):
        for source in ("one", "two"):
            write_lines(
                tmp_path / source / f"src/{number:03d}.jsonl", ['{"text": "a"}'] * (1 + (source == "two"))
            )
    root = LocalStorage(str(tmp_path / "root"))
    for number in range(APART):
        for source in ("one", "two"):
            settings = settings_of(tmp_path / source / "src", tmp_path / "root", limit=(number + 1) * 2)
            result = plan_generation(settings, root)
            if result.changes:
                write_plan(root, result.summary, result.shards)
                remember_known(root, result.summary.base_uri, result.summary.generation)
    for source in ("one", "two"):
        uri = str(tmp_path / source / "src")
        whole, light = read_known(root, uri), read_known(root, uri, with_shards=False)
        assert (light.files, light.records) == (whole.files, whole.records)
