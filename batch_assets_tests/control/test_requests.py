"""Windows become shards, each once, whoever dies; a request's state follows from its shard's."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batch_assets.control.collection import collect_shards
from batch_assets.control.merging import merge_shards, publish_merge
from batch_assets.control.request_planning import plan_requests, request_source
from batch_assets.control.request_worker import collectable_now, prepare_planned
from batch_assets.control.retrying import retry_shards
from batch_assets.errors import StorageError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.merge.verification import verify
from batch_assets.requests.account import read_account
from batch_assets.requests.bodies import BodyRules
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.planned import shards_between
from batch_assets.requests.results import Outcome, Results
from batch_assets.requests.store import NewRequest, RequestStore, new_id
from batch_assets.sharding.plan import Shard
from batch_assets.sources.base import Fault
from batch_assets_tests.command import published
from batch_assets_tests.control.test_crashes import in_dying_child
from batch_assets_tests.fakes import FakeHost, fake_vector
from batch_assets_tests.requests.builders import (
    NAME,
    compute,
    make_settings,
    open_asks,
    open_ledger,
    open_requests,
    send,
)


def outcome(database: RequestsDatabase, ledger: Ledger, job_id: str) -> Outcome:
    found = RequestStore(database).find(job_id)
    assert found is not None
    return Results(database, ledger).look_up(found)


def test_a_result_is_found_by_its_id(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    ids = send(database, settings, *(f"text {number}" for number in range(7)))
    assert outcome(database, pipeline.ledger, ids[0]).status == "queued"
    plan_requests(pipeline, request_source(settings, pipeline.storage, database))
    assert outcome(database, pipeline.ledger, ids[0]).status == "in_progress"
    assert compute(pipeline, database) == []
    for number, job_id in enumerate(ids):
        found = outcome(database, pipeline.ledger, job_id)
        assert found.status == "completed"
        assert found.result is not None
        assert found.result["embedding"] == pytest.approx(fake_vector(f"text {number}").tolist())
        assert found.result["token_count"] == 2
    account = read_account(database, pipeline.ledger, NAME)
    assert (account.accepted, account.completed, account.open, account.missing) == (7, 7, 0, 0)
    report = verify(str(tmp_path / "out"))
    assert report.ok, report.problems


def test_a_lookup_reads_one_short_row_group_of_many(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path, {"seal_records": 10_000}), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    ids = send(database, settings, *(f"text {number}" for number in range(2_500)))
    compute(pipeline, database)
    [file] = (tmp_path / "out/shards").rglob("embeddings*.parquet")
    footer = pq.read_metadata(file)
    assert [footer.row_group(group).num_rows for group in range(footer.num_row_groups)] == [1024, 1024, 452]
    for number in (0, 1023, 1024, 2_499):
        found = outcome(database, pipeline.ledger, ids[number]).result
        assert found is not None and found["embedding"] == pytest.approx(
            fake_vector(f"text {number}").tolist()
        )


def test_windows_that_wait_together_share_a_shard_and_none_is_planned_twice(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    send(database, settings, *map(str, range(8)))
    assert compute(pipeline, database) == ["g0001-00000"], "three windows of at most three"
    send(database, settings, "later")
    assert compute(pipeline, database) == ["g0002-00000"]
    assert compute(pipeline, database) == []


def test_a_window_waits_for_the_schedule(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    source = request_source(settings, pipeline.storage, database)
    send(database, settings, "a")
    long_ago, later = 1.0, pipeline.ledger.now() + 3600
    assert plan_requests(pipeline, source, sealed_before=long_ago) == []
    assert len(source.planned.unplanned(10)) == 1, "it is sealed all the same"
    assert plan_requests(pipeline, source, sealed_before=later) == ["g0001-00000"]


DEATHS = [
    "window-chosen",
    "window-written",
    "windows-planned",
    "shards-added",
    "shard-claimed",
    "marker-committed",
]


@pytest.mark.parametrize("point", DEATHS)
def test_dead_at_any_point_every_request_is_answered_once(tmp_path: Path, point: str) -> None:
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    ids = send(database, settings, "a", "b", "c", "d", tenant="t")
    database.dispose()

    def work() -> None:
        compute(open_asks(tmp_path, settings), open_requests(tmp_path))

    in_dying_child(work, point, 1)
    database, host = open_requests(tmp_path), FakeHost()
    pipeline = open_asks(tmp_path, settings, host)
    more = send(database, settings, "e")
    compute(pipeline, database)
    assert [outcome(database, pipeline.ledger, job_id).status for job_id in (*ids, *more)] == [
        "completed"
    ] * 5
    account = read_account(database, pipeline.ledger, NAME)
    assert (account.accepted, account.completed, account.missing) == (5, 5, 0)
    assert verify(str(tmp_path / "out")).accounting.planned == 5


def test_a_job_that_fails_is_told_with_its_reason_and_taken_up_again(tmp_path: Path) -> None:
    def fail(_: Shard) -> None:
        raise ValueError("the card is on fire")

    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    [job_id] = send(database, settings, "a")
    broken = open_asks(tmp_path, settings, FakeHost(before=fail))
    ledger = broken.ledger
    for _ in range(10):
        compute(broken, database)
    assert ledger.counts(NAME)[State.EXHAUSTED] == 1
    found = outcome(database, ledger, job_id)
    assert found.status == "failed"
    assert found.error is not None and "on fire" in found.error["message"]
    account = read_account(database, ledger, NAME)
    assert (account.failed, account.open, account.missing) == (1, 0, 0)
    between = shards_between(database, NAME, ledger.now() - 3600, ledger.now() + 3600)
    assert between == ["g0001-00000"]
    assert shards_between(database, NAME, None, ledger.now() - 3600) == []
    retry_shards(settings, ledger, between, recompute=False)
    compute(open_asks(tmp_path, settings), database)
    assert outcome(database, ledger, job_id).status == "completed"


def test_a_lost_database_loses_what_was_not_sealed_and_nothing_else(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    done = send(database, settings, "a", "b", tenant="t")
    compute(pipeline, database)
    sealed = send(database, settings, "c", tenant="t")
    request_source(settings, pipeline.storage, database).windows.seal()
    lost = send(database, settings, "d")
    database.dispose()
    database = open_requests(tmp_path, "another")
    compute(pipeline, database)
    store = RequestStore(database)
    assert [outcome(database, pipeline.ledger, job_id).status for job_id in (*done, *sealed)] == [
        "completed"
    ] * 3
    found = store.find(done[0])
    assert found is not None and found.tenant == "t"
    assert store.find(lost[0]) is None
    assert read_account(database, pipeline.ledger, NAME).missing == 0


def test_a_lost_ledger_computes_nothing_again(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    ids = send(database, settings, "a", "b")
    compute(open_asks(tmp_path, settings), database)
    host = FakeHost()
    pipeline = open_asks(tmp_path, settings, host, ledger="another")
    ids += send(database, settings, "c")
    compute(pipeline, database)
    assert host.computed == ["g0002-00000"]
    assert [outcome(database, pipeline.ledger, job_id).status for job_id in ids] == ["completed"] * 3


def test_columns_of_strangers_block_nobody(tmp_path: Path) -> None:
    """More columns than a table can have, of any type, differing from one request to the next."""
    settings, database = make_settings(tmp_path, {"seal_records": 1000}), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    values = [1, "x", None, {"a": [1]}, 2.5, True]
    bodies = [
        json.dumps(
            {"text": "x", "n": values[number % 6], **{f"c{number}-{place}": place for place in range(50)}}
        )
        for number in range(40)
    ]
    bodies.append(json.dumps({"text": "x", "Text": "y", "embedding": [1], "record_id": "mine", "": 1}))
    ids = [new_id() for _ in bodies]
    new = [NewRequest(one, NAME, "t", body.encode(), b"") for one, body in zip(ids, bodies, strict=True)]
    RequestStore(database).accept(new)
    compute(pipeline, database)
    statuses = [outcome(database, pipeline.ledger, job_id).status for job_id in ids]
    assert statuses == ["completed"] * len(ids)
    send(database, settings, "and", "then")
    assert len(compute(pipeline, database)) == 1


def test_windows_are_known_again_whatever_their_records_hold(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path, {"seal_records": 10}), open_requests(tmp_path)
    bodies = [
        b'{"text": "a",\r\n "n": 1}',
        b'{"text": "b", "n": NaN}',
        b'{"text": "c\xe2\x80\xa8d", "n": 123456789012345678901234567890}',
        b'{"text": "\\u0000 e", "n": 1e999}',
    ]
    rules = BodyRules(settings)
    lines = [rules.read(body, "application/json") for body in bodies]
    ids = [new_id() for _ in bodies]
    RequestStore(database).accept(
        [
            NewRequest(one, NAME, "t", line, b"")
            for one, line in zip(ids, lines, strict=True)
            if not isinstance(line, Fault)
        ]
    )
    compute(open_asks(tmp_path, settings), database)
    again = open_requests(tmp_path, "another")
    pipeline = open_asks(tmp_path, settings)
    compute(pipeline, again)
    assert [outcome(again, pipeline.ledger, job_id).status for job_id in ids] == ["completed"] * 4
    assert read_account(again, pipeline.ledger, NAME).missing == 0


def test_one_window_that_is_gone_holds_no_other_up(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    source = request_source(settings, pipeline.storage, database)
    first = send(database, settings, "a")
    source.windows.seal()
    [file] = (tmp_path / "out" / "requests").rglob("*.jsonl")
    whole = file.read_bytes()
    file.unlink()
    second = send(database, settings, "b")
    with pytest.raises(StorageError, match="is gone; put it back"):
        plan_requests(pipeline, source)
    prepare_planned(pipeline)
    list(collect_shards(pipeline, collectable_now(pipeline)))
    assert outcome(database, pipeline.ledger, second[0]).status == "completed"
    assert outcome(database, pipeline.ledger, first[0]).status == "in_progress"
    file.write_bytes(whole + b"{}\n")
    with pytest.raises(StorageError, match="was sealed with"):
        plan_requests(pipeline, source)
    file.write_bytes(whole)
    compute(pipeline, database)
    assert outcome(database, pipeline.ledger, first[0]).status == "completed"


def test_a_merge_takes_what_there_is(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path, parity="off"), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    ids = send(database, settings, "a", "b")
    compute(pipeline, database)
    send(database, settings, "c")
    plan_requests(pipeline, request_source(settings, pipeline.storage, database))
    publish_merge(pipeline, merge_shards(pipeline))
    assert set(published(tmp_path / "out")["record_id"]) == set(ids)


def test_what_is_answered_stays_answered_while_its_shard_is_computed_again(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    ids = send(database, settings, "a", "b")
    compute(pipeline, database)
    before = [outcome(database, pipeline.ledger, job_id) for job_id in ids]
    retry_shards(settings, pipeline.ledger, ["g0001-00000"], recompute=True)
    assert [outcome(database, pipeline.ledger, job_id).result for job_id in ids] == [
        one.result for one in before
    ]
    compute(pipeline, database)
    assert [outcome(database, pipeline.ledger, job_id).status for job_id in ids] == ["completed"] * 2


def test_another_file_in_a_windows_place_is_not_taken_for_it(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    [job_id] = send(database, settings, "a")
    database.dispose()
    in_dying_child(
        lambda: compute(open_asks(tmp_path, settings), open_requests(tmp_path)), "window-written", 1
    )
    [file] = (tmp_path / "out" / "requests").rglob("*.jsonl")
    whole = file.read_bytes()
    file.write_bytes(b"{}\n")
    database = open_requests(tmp_path)
    with pytest.raises(Exception, match="move it away"):
        compute(pipeline, database)
    file.write_bytes(whole)
    compute(pipeline, database)
    assert outcome(database, pipeline.ledger, job_id).status == "completed"
    shutil.rmtree(tmp_path / "out" / "requests")
    assert outcome(database, open_ledger(tmp_path), job_id).status == "completed", "results need no window"
