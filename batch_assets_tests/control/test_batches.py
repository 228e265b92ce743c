"""Batches end whatever dies: each line in one of the two files, computed once, counted once, on either database."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batch_assets.control import batch_taking
from batch_assets.control.batch_ending import BatchEnding
from batch_assets.control.batch_taking import take_batches
from batch_assets.control.client_files import remove_client_files
from batch_assets.control.pipeline import Pipeline
from batch_assets.control.request_planning import plan_requests, request_source
from batch_assets.control.request_removal import remove_expired
from batch_assets.control.request_worker import prepare_planned
from batch_assets.errors import StorageError
from batch_assets.merge.verification import verify
from batch_assets.requests.account import read_account
from batch_assets.requests.batches.files import INPUT, FileStore, NewFile, Written, new_file_id
from batch_assets.requests.batches.store import Batch, BatchStore, NewBatch
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.results import Results
from batch_assets.requests.store import RequestStore
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import open_storage
from batch_assets_tests.control.test_crashes import in_dying_child
from batch_assets_tests.control.test_request_removal import open_later
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.ledger.postgres import running_server
from batch_assets_tests.requests.builders import (
    NAME,
    compute,
    compute_batches,
    make_settings,
    open_asks,
    open_requests,
    send,
)

EMBEDDINGS = "/v1/embeddings"


def add_batch(
    database: RequestsDatabase, settings: PipelineSettings, texts: Iterable[str], seconds: float = 3600
) -> str:
    """A batch of these texts, as the server leaves it; its id."""
    storage, files = open_storage(settings.output.root), FileStore(database)
    lines = [
        {"custom_id": text, "method": "POST", "url": EMBEDDINGS, "body": {"model": NAME, "input": text}}
        for text in texts
    ]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    new = NewFile(new_file_id(), "t", INPUT, "calls.jsonl", storage.uri)
    files.announce(new)
    storage.write(new.path, data)
    files.make_known(new.id, new.filename, Written(len(data), len(lines), ""), 3600)
    asked = NewBatch("t", settings.name, EMBEDDINGS, new.id, "1h", seconds, 7200, None)
    return BatchStore(database).create(asked, is_repeated=False).id


def batch_of(database: RequestsDatabase, batch_id: str) -> Batch:
    found = BatchStore(database).find(batch_id)
    assert found is not None
    return found


def lines_of(database: RequestsDatabase, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    file = FileStore(database).find(file_id)
    assert file is not None and file.deleted_at is None
    data = open_storage(file.root).read(file.path)
    assert (len(data), data.count(b"\n")) == (file.bytes, file.lines)
    return [json.loads(line) for line in data.splitlines()]


def ids_in(database: RequestsDatabase, file_id: str | None) -> list[str]:
    return [line["custom_id"] for line in lines_of(database, file_id)]


def expire(database: RequestsDatabase, batch_id: str) -> None:
    with database.write() as connection:
        connection.execute(
            sa.text("UPDATE requests_batches SET expires = 1 WHERE id = :id"), {"id": batch_id}
        )


def end_early(database: RequestsDatabase, batch_id: str, status: str) -> None:
    """Have a batch end as expired or cancelled at the next look."""
    if status == "expired":
        expire(database, batch_id)
    else:
        assert BatchStore(database).move(batch_of(database, batch_id), "cancelling")


OWN_WINDOWS, OPEN_WINDOW = 2, 100
"""With so many records for a window, seven lines have windows of their own, or wait for the next one."""
DEATHS_OF_BOTH = [
    "batch-judged",
    "batch-part-taken",
    "windows-planned",
    "marker-committed",
    "batch-finalizing",
    "batch-files-written",
]
DEATHS = [
    ("batch-window-written", OWN_WINDOWS),
    ("window-chosen", OPEN_WINDOW),
    *itertools.product(DEATHS_OF_BOTH, (OWN_WINDOWS, OPEN_WINDOW)),
]


@pytest.mark.parametrize(("point", "seal_records"), DEATHS)
def test_dead_at_any_point_every_line_is_answered_once(
    tmp_path: Path, point: str, seal_records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_taking, "PART_LINES", 3)
    settings, database = make_settings(tmp_path, {"seal_records": seal_records}), open_requests(tmp_path)
    texts = [f"text {number}" for number in range(7)]
    batch_id = add_batch(database, settings, texts)
    database.dispose()

    def work() -> None:
        compute_batches(open_asks(tmp_path, settings), open_requests(tmp_path))

    in_dying_child(work, point, 1)
    database = open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    compute_batches(pipeline, database)
    batch = batch_of(database, batch_id)
    assert (batch.status, batch.total, batch.completed, batch.failed) == ("completed", 7, 7, 0)
    assert ids_in(database, batch.output_file) == texts
    account = read_account(database, pipeline.ledger, NAME)
    assert (account.accepted, account.completed, account.open, account.missing) == (7, 7, 0, 0)
    assert verify(str(tmp_path / "out")).accounting.planned == 7
    assert len(list((tmp_path / "out" / "client_files").iterdir())) == 2


def test_when_its_time_is_up_what_has_ended_stays_and_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_taking, "PART_LINES", 6)
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    texts = [f"text {number}" for number in range(10)]
    batch_id = add_batch(database, settings, texts)
    take_batches(pipeline, database)
    take_batches(pipeline, database)
    compute(pipeline, database)
    ending = BatchEnding(pipeline, database)
    assert not ending.end_batches()
    under_way = batch_of(database, batch_id)
    assert (under_way.status, under_way.completed, under_way.failed) == ("in_progress", 6, 0)
    expire(database, batch_id)
    assert ending.end_batches()
    batch = batch_of(database, batch_id)
    assert (batch.status, batch.total, batch.completed, batch.failed) == ("expired", 10, 6, 4)
    assert ids_in(database, batch.output_file) == texts[:6]
    assert [(line["custom_id"], line["error"]["code"]) for line in lines_of(database, batch.error_file)] == [
        (text, "batch_expired") for text in texts[6:]
    ]
    assert not take_batches(pipeline, database)


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_requests_that_wait_end_with_their_batch(tmp_path: Path, status: str) -> None:
    settings = make_settings(tmp_path, {"seal_records": 100, "seal_seconds": 3600})
    database = open_requests(tmp_path)
    pipeline, ending = open_asks(tmp_path, settings), None
    [other] = send(database, settings, "somebody else's")
    batch_id = add_batch(database, settings, ["a", "b"])
    ending = BatchEnding(pipeline, database)
    compute_batches(pipeline, database, ending)
    batch = batch_of(database, batch_id)
    assert batch.status == "in_progress"
    end_early(database, batch_id, status)
    compute_batches(pipeline, database, ending)
    batch = batch_of(database, batch_id)
    assert (batch.status, batch.completed, batch.failed) == (status, 0, 2)
    lines = lines_of(database, batch.error_file)
    assert [line["error"]["code"] for line in lines] == [f"batch_{status}"] * 2
    account = read_account(database, pipeline.ledger, NAME)
    assert (account.accepted, account.open, getattr(account, status), account.missing) == (3, 1, 2, 0)
    store, results = RequestStore(database), Results(database, pipeline.ledger)
    told = store.find(lines[0]["id"].removeprefix("batch_req_"))
    waiting = store.find(other)
    assert told is not None and results.look_up(told).status == status
    assert waiting is not None and results.look_up(waiting).status == "queued"


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_what_has_not_begun_of_a_batch_that_ends_early_is_not_computed(tmp_path: Path, status: str) -> None:
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    host = FakeHost()
    pipeline = open_asks(tmp_path, settings, host)
    batch_id = add_batch(database, settings, [f"text {number}" for number in range(7)])
    while take_batches(pipeline, database):
        pass
    plan_requests(pipeline, request_source(settings, pipeline.storage, database))
    assert prepare_planned(pipeline)
    end_early(database, batch_id, status)
    assert BatchEnding(pipeline, database).end_batches()
    compute(pipeline, database)
    assert host.computed == []
    batch = batch_of(database, batch_id)
    assert (batch.status, batch.completed, batch.failed) == (status, 0, 7)
    lines = lines_of(database, batch.error_file)
    assert {line["error"]["code"] for line in lines} == {f"batch_{status}"}
    account = read_account(database, pipeline.ledger, NAME)
    assert (account.failed, account.open, account.missing) == (7, 0, 0)
    told = RequestStore(database).find(lines[0]["id"].removeprefix("batch_req_"))
    assert told is not None
    outcome = Results(database, pipeline.ledger).look_up(told)
    assert outcome.status == "failed" and f"batch_{status}" in str(outcome.error)


def test_what_shares_a_shard_with_others_is_computed_though_its_batch_is_cancelled(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path, {"seal_records": 3}), open_requests(tmp_path)
    host = FakeHost()
    pipeline = open_asks(tmp_path, settings, host)
    [other] = send(database, settings, "somebody else's")
    batch_id = add_batch(database, settings, ["a", "b"])
    while take_batches(pipeline, database):
        pass
    plan_requests(pipeline, request_source(settings, pipeline.storage, database))
    assert prepare_planned(pipeline)
    end_early(database, batch_id, "cancelled")
    assert BatchEnding(pipeline, database).end_batches()
    compute(pipeline, database)
    waiting = RequestStore(database).find(other)
    assert waiting is not None and Results(database, pipeline.ledger).look_up(waiting).status == "completed"
    assert batch_of(database, batch_id).status == "cancelled"


def test_a_shard_that_is_given_up_fails_its_lines_and_keeps_the_others(tmp_path: Path) -> None:
    def fail(_: Any) -> None:
        raise ValueError("the card is on fire")

    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    good = open_asks(tmp_path, settings)
    batch_id = add_batch(database, settings, map(str, range(4)))
    broken = open_asks(tmp_path, settings, FakeHost(before=fail))
    for _ in range(10):
        compute_batches(broken, database)
    batch = batch_of(database, batch_id)
    assert (batch.status, batch.completed, batch.failed, batch.output_file) == ("completed", 0, 4, None)
    assert "on fire" in lines_of(database, batch.error_file)[0]["error"]["message"]
    assert good.ledger is not None


def test_files_and_batches_leave_when_their_time_is_up(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path, {"keep": "1h"}, parity="off"), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    batch_id = add_batch(database, settings, ["a", "b", "c"])
    open_one = add_batch(database, settings, ["d"])
    compute_batches(pipeline, database)
    batch = batch_of(database, batch_id)
    folder = tmp_path / "out" / "client_files"
    (folder / "notes.jsonl").write_text("somebody's")
    (folder / f"file-{'0' * 32}.jsonl").write_text("somebody's, too")
    before = set(folder.iterdir())
    assert remove_client_files(pipeline, database) == 0
    files = FileStore(database)
    for file_id in (batch.input_file, batch.output_file, batch_of(database, open_one).input_file):
        found = files.find(str(file_id))
        assert found is not None
        files.delete(found)
    with database.write() as connection:  # as if it had not ended
        connection.execute(
            sa.text("UPDATE requests_batches SET ended_at = NULL WHERE id = :id"), {"id": open_one}
        )
    assert remove_client_files(pipeline, database) == 2
    gone = {path.name for path in before - set(folder.iterdir())}
    assert gone == {f"{batch.input_file}.jsonl", f"{batch.output_file}.jsonl"}
    remove_expired(open_later(tmp_path), database)
    assert BatchStore(database).find(batch_id) is None
    with database.read() as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM requests_batch_lines").scalar()
    assert left == 1, "of the batch that goes on"


def test_it_holds_on_postgresql(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with running_server() as server:
        database = RequestsDatabase(server.url)
        pipeline = open_asks(tmp_path, settings)
        check_whole_way(pipeline, database)
        database.dispose()


def check_whole_way(pipeline: Pipeline, database: RequestsDatabase) -> None:
    large = add_batch(database, pipeline.settings, map(str, range(7)))
    small = add_batch(database, pipeline.settings, ["a", "b"])
    compute_batches(pipeline, database)
    late = add_batch(database, pipeline.settings, ["c"])
    expire(database, late)
    compute_batches(pipeline, database)
    found = [batch_of(database, one) for one in (large, small, late)]
    assert [one.status for one in found] == ["completed", "completed", "expired"]
    assert ids_in(database, found[0].output_file) == list(map(str, range(7)))
    store, files = BatchStore(database), FileStore(database)
    assert [one.id for one in store.newest("t", None, 2)] == [late, small]
    again = NewBatch("t", NAME, EMBEDDINGS, found[1].input_file, "1h", 3600, 7200, None)
    assert store.create(again, is_repeated=True).id == small
    listed = files.listed("t", None, None, 10, oldest_first=True)
    assert [file.purpose for file in listed].count(INPUT) == 3
    assert remove_client_files(pipeline, database) == 0
    assert store.remove_ended(NAME, found[2].created + 3600) == 3


def input_path(tmp_path: Path, database: RequestsDatabase, batch_id: str) -> Path:
    return tmp_path / "out" / "client_files" / f"{batch_of(database, batch_id).input_file}.jsonl"


def test_a_batch_whose_file_cannot_be_read_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_taking, "PART_LINES", 2)
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    away = add_batch(database, settings, ["a", "b", "c"])
    take_batches(pipeline, database)
    take_batches(pipeline, database)
    input_path(tmp_path, database, away).rename(tmp_path / "elsewhere")
    others = [add_batch(database, settings, [f"text {number}"]) for number in range(3)]
    for _ in range(4):
        with pytest.raises(
            StorageError, match=f"{batch_of(database, away).input_file}.* is gone; put it back"
        ):
            take_batches(pipeline, database)
    compute(pipeline, database)
    BatchEnding(pipeline, database).end_batches()
    assert [batch_of(database, one).status for one in (away, *others)] == ["in_progress"] + ["completed"] * 3
    (tmp_path / "elsewhere").rename(input_path(tmp_path, database, away))
    compute_batches(pipeline, database)
    assert ids_in(database, batch_of(database, away).output_file) == ["a", "b", "c"]


def test_a_batch_whose_file_went_before_it_was_judged_fails(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    batch_id = add_batch(database, settings, ["a"])
    input_path(tmp_path, database, batch_id).unlink()
    compute_batches(pipeline, database)
    batch = batch_of(database, batch_id)
    assert (batch.status, json.loads(batch.errors or "")[0]["code"]) == ("failed", "file_not_found")


def test_no_batch_waits_for_the_end_of_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_taking, "BATCHES_AT_ONCE", 2)
    settings = make_settings(tmp_path, {"seal_records": 100, "seal_seconds": 3600})
    database = open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    ids = [add_batch(database, settings, [f"text {number}"]) for number in range(5)]
    while take_batches(pipeline, database):
        pass
    assert {batch_of(database, one).status for one in ids} == {"in_progress"}
    assert read_account(database, pipeline.ledger, NAME).open == 5


def test_what_was_judged_too_late_is_not_taken(tmp_path: Path) -> None:
    settings, database = make_settings(tmp_path), open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    batch_id = add_batch(database, settings, ["a", "b"])
    expire(database, batch_id)
    assert BatchEnding(pipeline, database).end_batches()
    compute_batches(pipeline, database)
    batch = batch_of(database, batch_id)
    assert (batch.status, batch.total, batch.failed) == ("expired", 2, 2)
    assert ids_in(database, batch.error_file) == ["a", "b"]
    assert read_account(database, pipeline.ledger, NAME).accepted == 0
