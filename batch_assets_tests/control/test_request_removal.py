"""Requests leave by `keep`: wholly, wherever the process dies, counted once, and nobody else's files with them."""

import time
from pathlib import Path

import pytest

from batch_assets.control.merging import merge_shards, publish_merge
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.request_removal import remove_expired
from batch_assets.control.retrying import retry_shards
from batch_assets.errors import NotReady
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.merge.verification import verify
from batch_assets.requests.account import read_account
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.results import Results
from batch_assets.requests.store import NewRequest, RequestStore
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets_tests.command import published
from batch_assets_tests.control.test_crashes import in_dying_child
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.requests.builders import (
    NAME,
    compute,
    make_request,
    make_settings,
    open_asks,
    open_requests,
    send,
)

KEEP_SECONDS = 3600


def settings_in(folder: Path) -> PipelineSettings:
    return make_settings(folder, {"keep": "1h"}, parity="off")


def open_later(folder: Path, ledger: str = "ledger", host: FakeHost | None = None) -> Pipeline:
    """The pipeline by a clock at which all that has ended so far is not to be kept."""
    settings = settings_in(folder)
    later = Ledger.open(f"sqlite:///{folder}/{ledger}.db", clock=lambda: time.time() + KEEP_SECONDS + 60)
    return open_pipeline(settings, later, (host or FakeHost()).executor(settings))


def three_generations(folder: Path) -> tuple[RequestsDatabase, list[list[str]]]:
    """Computed and not to be kept, but for the newest; the ids of each."""
    database = open_requests(folder)
    pipeline = open_asks(folder, settings_in(folder))
    ids: list[list[str]] = []
    for number in range(3):
        ids.append(send(database, pipeline.settings, f"a {number}", f"b {number}", tenant="t"))
        compute(pipeline, database)
    return database, ids


def all_files(folder: Path) -> set[str]:
    root = folder / "out"
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def statuses(database: RequestsDatabase, ledger: Ledger, ids: list[str]) -> list[str | None]:
    found = [RequestStore(database).find(job_id) for job_id in ids]
    return [None if one is None else Results(database, ledger).look_up(one).status for one in found]


def check_removed(folder: Path, database: RequestsDatabase, pipeline: Pipeline, ids: list[list[str]]) -> None:
    """The first two generations are gone without a trace but in the account; the third is as it was."""
    ledger = pipeline.ledger
    assert statuses(database, ledger, [*ids[0], *ids[1]]) == [None] * 4
    assert statuses(database, ledger, ids[2]) == ["completed"] * 2
    account = read_account(database, ledger, NAME)
    assert (account.accepted, account.completed, account.failed, account.missing) == (6, 6, 0, 0)
    assert [row.key for row in ledger.shards(NAME, superseded=True)] == ["g0003-00000"]
    left = all_files(folder)
    assert not [path for path in left if "g0001" in path or "g0002" in path]
    assert len([path for path in left if path.endswith(".jsonl")]) == 1
    with database.read() as connection:
        for table in ("accepted", "windows", "segments", "shares", "removals"):
            rows = connection.exec_driver_sql(f"SELECT count(*) FROM requests_{table}").scalar()
            assert rows == {"accepted": 2, "removals": 0}.get(table, 1), table
    report = verify(str(folder / "out"))
    assert report.ok, report.problems


def test_what_has_ended_long_ago_leaves_and_the_newest_generation_stays(tmp_path: Path) -> None:
    database, ids = three_generations(tmp_path)
    young = open_asks(tmp_path, settings_in(tmp_path))
    before = all_files(tmp_path)
    assert remove_expired(young, database) == 0
    assert all_files(tmp_path) == before
    pipeline = open_later(tmp_path)
    assert remove_expired(pipeline, database) == 2
    check_removed(tmp_path, database, pipeline, ids)
    assert remove_expired(pipeline, database) == 0
    # And it goes on.
    more = send(database, pipeline.settings, "c")
    assert compute(pipeline, database) == ["g0004-00000"]
    assert statuses(database, pipeline.ledger, more) == ["completed"]


DEATHS = [
    "generation-retired",
    "removal-begun",
    "windows-removed",
    "plan-removed",
    "shards-removed",
    "generation-forgotten",
]


@pytest.mark.parametrize("point", DEATHS)
def test_dead_at_any_point_the_next_one_goes_on(tmp_path: Path, point: str) -> None:
    database, ids = three_generations(tmp_path)
    database.dispose()
    in_dying_child(lambda: remove_expired(open_later(tmp_path), open_requests(tmp_path)), point, 1)
    host = FakeHost()
    pipeline = open_later(tmp_path, host=host)
    remove_expired(pipeline, database)
    check_removed(tmp_path, database, pipeline, ids)
    compute(pipeline, database)
    assert host.computed == []


@pytest.mark.parametrize("point", DEATHS)
def test_with_the_ledger_lost_meanwhile_nothing_is_computed_or_counted_twice(
    tmp_path: Path, point: str
) -> None:
    database, ids = three_generations(tmp_path)
    database.dispose()
    in_dying_child(lambda: remove_expired(open_later(tmp_path), open_requests(tmp_path)), point, 1)
    host = FakeHost()
    pipeline = open_later(tmp_path, ledger="another", host=host)
    compute(pipeline, database)
    assert host.computed == []
    remove_expired(open_later(tmp_path, ledger="another"), database)
    later = Ledger.open(f"sqlite:///{tmp_path}/another.db", clock=lambda: time.time() + 3 * KEEP_SECONDS)
    remove_expired(open_pipeline(pipeline.settings, later, host.executor(pipeline.settings)), database)
    check_removed(tmp_path, database, pipeline, ids)


@pytest.mark.parametrize("point", DEATHS)
def test_with_the_requests_lost_meanwhile_nothing_is_computed_twice(tmp_path: Path, point: str) -> None:
    database, ids = three_generations(tmp_path)
    database.dispose()
    in_dying_child(lambda: remove_expired(open_later(tmp_path), open_requests(tmp_path)), point, 1)
    host, other = FakeHost(), open_requests(tmp_path, "other")
    pipeline = open_later(tmp_path, host=host)
    compute(pipeline, other)
    remove_expired(pipeline, other)
    assert host.computed == []
    assert statuses(other, pipeline.ledger, ids[2]) == ["completed"] * 2
    more = send(other, pipeline.settings, "c")
    assert compute(pipeline, other) == ["g0004-00000"]
    assert statuses(other, pipeline.ledger, more) == ["completed"]


def test_requests_known_again_from_what_is_left(tmp_path: Path) -> None:
    _, ids = three_generations(tmp_path)
    remove_expired(open_later(tmp_path), open_requests(tmp_path))
    host, other = FakeHost(), open_requests(tmp_path, "other")
    pipeline = open_later(tmp_path, ledger="another", host=host)
    compute(pipeline, other)
    assert host.computed == []
    assert (
        statuses(other, pipeline.ledger, [job_id for some in ids for job_id in some])
        == [None] * 4 + ["completed"] * 2
    )
    assert read_account(other, pipeline.ledger, NAME).missing == 0


def test_strangers_files_stay(tmp_path: Path) -> None:
    database, _ = three_generations(tmp_path)
    root = tmp_path / "out"
    window = min((root / "requests").rglob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    [other] = [one for one in (root / "requests").rglob("*.jsonl") if b"a 1" in one.read_bytes()]
    with_other_ids = other.read_bytes().replace(b"-7", b"-8")
    assert with_other_ids != other.read_bytes(), "of the same length, with the ids of nobody"
    mine = {
        root / "shards/g0001-00000/notes.txt": b"mine",
        root / "shards/g0001-00000/embeddings-7.parquet": b"no parquet",
        root / "jobs/g0001-00000/mine": b"",
        window.with_name("mine.jsonl"): b"{}",
        window: window.read_bytes() + b"{}\n",
        other: with_other_ids,
        root / "plan/g0001.parquet": (root / "plan/g0002.parquet").read_bytes(),
        root / "plan/g0002.json": b"mine",
    }
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "failures-1.parquet").write_bytes(b"mine")
    for path, content in mine.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "shards/g0002-00000/attempts").symlink_to(elsewhere)
    assert remove_expired(open_later(tmp_path), database) == 2
    assert {path: path.read_bytes() for path in mine} == mine
    assert (elsewhere / "failures-1.parquet").read_bytes() == b"mine"


def test_another_ledgers_root_is_left_alone(tmp_path: Path) -> None:
    database, _ = three_generations(tmp_path)
    pipeline = open_later(tmp_path)
    open_asks(tmp_path, settings_in(tmp_path), ledger="another")
    before = all_files(tmp_path)
    with pytest.raises(NotReady, match="another ledger"):
        remove_expired(pipeline, database)
    assert all_files(tmp_path) == before


def test_what_is_at_work_again_stays(tmp_path: Path) -> None:
    database, ids = three_generations(tmp_path)
    pipeline = open_later(tmp_path)
    retry_shards(pipeline.settings, pipeline.ledger, ["g0001-00000"], recompute=True)
    assert remove_expired(pipeline, database) == 1
    assert statuses(database, pipeline.ledger, ids[0]) == ["completed"] * 2
    assert statuses(database, pipeline.ledger, ids[1]) == [None] * 2
    assert read_account(database, pipeline.ledger, NAME).missing == 0


def test_what_failed_leaves_as_failed(tmp_path: Path) -> None:
    def fail(_: Shard) -> None:
        raise ValueError("no")

    database, settings = open_requests(tmp_path), settings_in(tmp_path)
    send(database, settings, "a", "b")
    broken = open_asks(tmp_path, settings, FakeHost(before=fail))
    for _ in range(10):
        compute(broken, database)
    assert broken.ledger.counts(NAME)[State.EXHAUSTED] == 1
    send(database, settings, "c")
    compute(open_asks(tmp_path, settings), database)
    pipeline = open_later(tmp_path)
    assert remove_expired(pipeline, database) == 1
    account = read_account(database, pipeline.ledger, NAME)
    assert (account.accepted, account.completed, account.failed, account.missing) == (3, 1, 2, 0)


def test_cancelled_requests_and_keys_leave(tmp_path: Path) -> None:
    database, settings = open_requests(tmp_path), settings_in(tmp_path)
    store = RequestStore(database)
    ids = send(database, settings, "a", "b")
    first = store.find(ids[0])
    assert first is not None and store.cancel(first)

    def post() -> NewRequest:
        return make_request("keyed", settings, key="k")

    [keyed] = store.accept([post()])
    compute(open_asks(tmp_path, settings), database)
    send(database, settings, "c")
    compute(open_asks(tmp_path, settings), database)
    assert not store.accept([post()])[0].is_new
    pipeline = open_later(tmp_path)
    assert remove_expired(pipeline, database) == 1
    assert statuses(database, pipeline.ledger, [*ids, keyed.id]) == [None] * 3
    assert store.accept([post()])[0].is_new
    account = read_account(database, pipeline.ledger, NAME)
    assert (account.accepted, account.cancelled, account.completed, account.missing) == (5, 1, 3, 0)


def test_a_published_version_stands_and_the_next_one_has_what_is_left(tmp_path: Path) -> None:
    database, ids = three_generations(tmp_path)
    pipeline = open_later(tmp_path)
    publish_merge(pipeline, merge_shards(pipeline))
    assert remove_expired(pipeline, database) == 2
    assert len(published(tmp_path / "out")) == 6
    report = verify(str(tmp_path / "out"))
    assert report.ok, report.problems
    publish_merge(pipeline, merge_shards(pipeline))
    assert sorted(published(tmp_path / "out")["record_id"]) == sorted(ids[2])
    report = verify(str(tmp_path / "out"))
    assert report.ok, report.problems
