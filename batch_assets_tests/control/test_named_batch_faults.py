"""The thirteen faults for which llm-d's batch gateway has a harness, by its names, as batches here can have them.

The harness is pull request 653 of llm-d-batch-gateway. `server/test_batches_at_a_gateway.py` kills real processes.
"""

import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batch_assets.control.batch_ending import BatchEnding
from batch_assets.control.batch_taking import take_batches
from batch_assets.control.client_files import remove_client_files
from batch_assets.control.pipeline import Pipeline
from batch_assets.control.request_planning import plan_requests, request_source
from batch_assets.control.request_worker import prepare_planned
from batch_assets.ledger.states import State
from batch_assets.requests.batches.files import INPUT, FileStore, NewFile, new_file_id
from batch_assets.requests.batches.store import BatchStore, NewBatch
from batch_assets.requests.database import RequestsDatabase
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets_tests.control.test_batches import add_batch, batch_of, expire, ids_in
from batch_assets_tests.control.test_crashes import in_dying_child
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.requests.builders import (
    NAME,
    compute,
    compute_batches,
    make_settings,
    open_asks,
    open_requests,
)

TEXTS = [f"text {number}" for number in range(7)]


@pytest.fixture
def settings(tmp_path: Path) -> PipelineSettings:
    return make_settings(tmp_path)


def begin(pipeline: Pipeline, database: RequestsDatabase) -> None:
    """Take what there is, up to the shards that wait for a device."""
    while take_batches(pipeline, database):
        pass
    plan_requests(pipeline, request_source(pipeline.settings, pipeline.storage, database))
    prepare_planned(pipeline)


def assert_all_done(database: RequestsDatabase, batch_id: str) -> None:
    batch = batch_of(database, batch_id)
    assert (batch.status, batch.total, batch.completed, batch.failed) == ("completed", 7, 7, 0)
    assert ids_in(database, batch.output_file) == TEXTS


def test_create_crash_after_store(tmp_path: Path, settings: PipelineSettings) -> None:
    """The server dies before it tells of a batch that is stored: it is done, and the repeated POST finds it."""
    database = open_requests(tmp_path)
    made = batch_of(database, add_batch(database, settings, TEXTS))
    database.dispose()
    database = open_requests(tmp_path)
    compute_batches(open_asks(tmp_path, settings), database)
    asked = NewBatch("t", NAME, made.endpoint, made.input_file, "1h", 3600, 7200, None)
    assert BatchStore(database).create(asked, is_repeated=True).id == made.id
    assert_all_done(database, made.id)


def test_cancel_event_lost(tmp_path: Path, settings: PipelineSettings) -> None:
    """Whoever computes dies before it sees the order to cancel: the next one does."""
    database = open_requests(tmp_path)
    batch_id = add_batch(database, settings, TEXTS)
    pipeline = open_asks(tmp_path, settings)
    begin(pipeline, database)
    assert BatchStore(database).move(batch_of(database, batch_id), "cancelling")
    host = FakeHost()
    compute_batches(open_asks(tmp_path, settings, host), database)
    assert batch_of(database, batch_id).status == "cancelled"


def test_orphaned_blob(tmp_path: Path, settings: PipelineSettings) -> None:
    """An upload's bytes whose end nobody saw leave the root, once it can be no upload any more."""
    database, files = open_requests(tmp_path), FileStore(open_requests(tmp_path))
    pipeline = open_asks(tmp_path, settings)
    new = NewFile(new_file_id(), "t", INPUT, "", pipeline.storage.uri)
    files.announce(new)
    pipeline.storage.write(new.path, b"half a fi")
    assert remove_client_files(pipeline, database) == 0, "it may go on"
    with database.write() as connection:
        connection.execute(sa.text("UPDATE requests_files SET expires = expires - 3601"))
    assert remove_client_files(pipeline, database) == 1
    assert not (tmp_path / "out" / new.path).exists()


def test_finalization_strand(tmp_path: Path, settings: PipelineSettings) -> None:
    """A batch whose end was begun by the dead ends, and its files are whole."""
    database = open_requests(tmp_path)
    batch_id = add_batch(database, settings, TEXTS)
    database.dispose()
    in_dying_child(
        lambda: compute_batches(open_asks(tmp_path, settings), open_requests(tmp_path)),
        "batch-files-written",
        1,
    )
    database = open_requests(tmp_path)
    assert batch_of(database, batch_id).status == "finalizing"
    BatchEnding(open_asks(tmp_path, settings), database).end_batches()
    assert_all_done(database, batch_id)


def test_zombie_owner_burns_inference(tmp_path: Path, settings: PipelineSettings) -> None:
    """Whoever was at a batch that is cancelled since computes nothing more of it."""
    database, host = open_requests(tmp_path), FakeHost()
    zombie = open_asks(tmp_path, settings, host)
    batch_id = add_batch(database, settings, TEXTS)
    begin(zombie, database)
    assert BatchStore(database).move(batch_of(database, batch_id), "cancelling")
    BatchEnding(open_asks(tmp_path, settings), database).end_batches()
    compute(zombie, database)
    assert host.computed == []


def test_async_result_destruction(tmp_path: Path, settings: PipelineSettings) -> None:
    """Results that come when the batch has ended take nothing from what it has, and are there by their requests."""
    database = open_requests(tmp_path)
    batch_id = add_batch(database, settings, TEXTS)
    pipeline = open_asks(tmp_path, settings)
    expired: list[str] = []

    def expire_meanwhile(_: Any) -> None:
        if not expired:
            expire(database, batch_id)
            BatchEnding(open_asks(tmp_path, settings), database).end_batches()
            expired.append(str(batch_of(database, batch_id).error_file))

    begin(pipeline, database)
    compute(open_asks(tmp_path, settings, FakeHost(before=expire_meanwhile)), database)
    BatchEnding(pipeline, database).end_batches()
    batch = batch_of(database, batch_id)
    assert (batch.status, batch.completed, batch.failed) == ("expired", 0, 7)
    assert ids_in(database, expired[0]) == TEXTS and batch.error_file == expired[0]


@pytest.mark.parametrize("ended", ["completed", "failed", "expired", "cancelled"])
def test_terminal_overwrite(tmp_path: Path, settings: PipelineSettings, ended: str) -> None:
    """Whoever looked before a batch ended moves it no more."""
    database = open_requests(tmp_path)
    seen = batch_of(database, add_batch(database, settings, TEXTS))
    assert BatchStore(database).move(seen, ended)
    for status in ("in_progress", "finalizing", "cancelling", "completed"):
        assert not BatchStore(database).move(seen, status)
    BatchStore(database).note_progress(seen, 3, 3)
    batch = batch_of(database, seen.id)
    assert (batch.status, batch.completed, batch.failed) == (ended, 0, 0)


@pytest.mark.parametrize("point", ["batch-part-taken", "shard-claimed", "rows-stored", "marker-committed"])
def test_worker_crash_strands_job(tmp_path: Path, settings: PipelineSettings, point: str) -> None:
    """Whoever computes dies: the next one goes on."""
    database = open_requests(tmp_path)
    batch_id = add_batch(database, settings, TEXTS)
    database.dispose()
    in_dying_child(lambda: compute_batches(open_asks(tmp_path, settings), open_requests(tmp_path)), point, 1)
    database = open_requests(tmp_path)
    compute_batches(open_asks(tmp_path, settings), database)
    assert_all_done(database, batch_id)


def test_cancel_reverted(tmp_path: Path, settings: PipelineSettings) -> None:
    """A batch that is cancelled while its file is judged, or taken, stays so."""
    database = open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    judged = batch_of(database, add_batch(database, settings, TEXTS))
    assert BatchStore(database).move(judged, "cancelling")
    assert not BatchStore(database).move(judged, "in_progress")
    compute_batches(pipeline, database)
    batch = batch_of(database, judged.id)
    assert (batch.status, batch.total, batch.failed) == ("cancelled", 7, 7)


def test_duplicate_execution(tmp_path: Path, settings: PipelineSettings) -> None:
    """Two that take one batch at once take each line once."""
    database, host = open_requests(tmp_path), FakeHost()
    batch_id = add_batch(database, settings, TEXTS)
    ready = threading.Barrier(2)

    def take() -> None:
        own = open_requests(tmp_path)
        pipeline = open_asks(tmp_path, settings)
        ready.wait()
        while take_batches(pipeline, own):
            pass

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipeline = open_asks(tmp_path, settings, host)
    compute_batches(pipeline, database)
    assert_all_done(database, batch_id)
    assert sum(row.records for row in pipeline.ledger.shards(NAME)) == 7
    assert len(host.computed) == len(set(host.computed))


def test_cancel_racing_completion(tmp_path: Path, settings: PipelineSettings) -> None:
    """A cancel that comes as the last request ends: one of both wins, and all results stay."""
    database = open_requests(tmp_path)
    batch_id = add_batch(database, settings, TEXTS)
    pipeline = open_asks(tmp_path, settings)
    begin(pipeline, database)
    compute(pipeline, database)
    seen = batch_of(database, batch_id)
    ended: list[bool] = []
    threads = [
        threading.Thread(target=lambda: ended.append(BatchStore(database).move(seen, "cancelling"))),
        threading.Thread(target=lambda: BatchEnding(pipeline, open_requests(tmp_path)).end_batches()),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    BatchEnding(pipeline, database).end_batches()
    batch = batch_of(database, batch_id)
    assert batch.status == ("cancelled" if ended == [True] else "completed")
    assert (batch.completed, batch.failed) == (7, 0)
    assert ids_in(database, batch.output_file) == TEXTS


def test_recovery_crash_loop(tmp_path: Path, settings: PipelineSettings) -> None:
    """A batch that kills whoever computes it ends after its attempts, and others' go on."""
    database = open_requests(tmp_path)
    batch_id = add_batch(database, settings, TEXTS)
    begin(open_asks(tmp_path, settings), database)
    attempts = settings.executor.max_attempts
    database.dispose()
    for _ in range(attempts):
        in_dying_child(
            lambda: compute(open_asks(tmp_path, settings), open_requests(tmp_path)), "shard-claimed", 1
        )
    database = open_requests(tmp_path)
    pipeline = open_asks(tmp_path, settings)
    compute_batches(pipeline, database)
    other = add_batch(database, settings, TEXTS)
    compute_batches(pipeline, database)
    assert_all_done(database, other)
    batch = batch_of(database, batch_id)
    assert batch.status == "completed" and batch.completed + batch.failed == 7
    states = {row.state for row in pipeline.ledger.shards(NAME)}
    assert states <= {State.COLLECTED, State.EXHAUSTED}


def test_replicas_execute_once(tmp_path: Path, settings: PipelineSettings) -> None:
    """Two processes with all steps side by side compute each request once."""
    database = open_requests(tmp_path)
    ids = [add_batch(database, settings, TEXTS) for _ in range(3)]
    hosts = [FakeHost(), FakeHost()]

    def work(host: FakeHost) -> None:
        own, pipeline = open_requests(tmp_path), open_asks(tmp_path, settings, host)
        for _ in range(3):
            compute_batches(pipeline, own)

    threads = [threading.Thread(target=work, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    compute_batches(open_asks(tmp_path, settings), database)
    for batch_id in ids:
        assert_all_done(database, batch_id)
    computed = hosts[0].computed + hosts[1].computed
    assert len(computed) == len(set(computed)), "no shard by both"
