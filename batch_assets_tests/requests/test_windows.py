"""Requests are sealed by number, bytes or time, each into one window, tenants by turns."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_assets import paths
from batch_assets.control.request_planning import plan_requests, request_source
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.planned import PlannedWindows
from batch_assets.requests.removing import Removals
from batch_assets.requests.store import Accepted, RequestStore, new_id
from batch_assets.requests.tenants import accepted_today, open_by_tenant
from batch_assets.requests.windows import Windows
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import open_storage
from batch_assets_tests.control.test_crashes import in_dying_child
from batch_assets_tests.ledger.postgres import running_server
from batch_assets_tests.requests.builders import (
    NAME,
    compute,
    make_request,
    make_settings,
    open_asks,
    open_requests,
    send,
)

SLOW = {"seal_records": 3, "seal_seconds": 3600}


def windows_in(folder: Path, settings: PipelineSettings) -> Windows:
    return Windows(open_requests(folder), settings, open_storage(settings.output.root))


def texts_of(folder: Path, names: list[str]) -> list[list[str]]:
    """The texts of each window's file."""
    files = [folder / "out" / "requests" / paths.window_file(name) for name in names]
    return [[json.loads(line)["text"] for line in file.read_bytes().splitlines()] for file in files]


def test_a_window_is_full_or_its_time_has_come(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, SLOW)
    windows = windows_in(tmp_path, settings)
    assert windows.seconds_until_due() is None
    send(windows.database, settings, "a", "b")
    left = windows.seconds_until_due()
    assert left is not None and 3000 < left <= 3600
    assert windows.seal() == []
    send(windows.database, settings, "c", "d")
    assert texts_of(tmp_path, windows.seal()) == [["a", "b", "c"]]
    at_once = windows_in(tmp_path, make_settings(tmp_path))
    assert texts_of(tmp_path, at_once.seal()) == [["d"]]
    assert at_once.seconds_until_due() is None


def test_a_window_has_no_more_bytes_than_a_shard(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, {"seal_records": 100}, shards={"bytes": 4000})
    windows = windows_in(tmp_path, settings)
    send(windows.database, settings, *("x" * 1000 for _ in range(5)))
    assert [len(texts) for texts in texts_of(tmp_path, windows.seal())] == [2, 2, 1]


def test_it_is_named_by_the_minute_in_which_it_was_opened_and_kept_as_it_is(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    windows = windows_in(tmp_path, settings)
    send(windows.database, settings, "a")
    [name] = windows.seal()
    file = tmp_path / "out" / "requests" / paths.window_file(name)
    sealed = json.loads(file.read_text())
    minute = sealed["arrival_time"][:16].translate(str.maketrans("-T:", "///"))
    assert file.parent == tmp_path / "out" / "requests" / minute
    before = file.read_bytes()
    send(windows.database, settings, "late")
    assert texts_of(tmp_path, windows.seal()) == [["late"]]
    assert file.read_bytes() == before


def test_tenants_take_turns(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, {"seal_records": 4})
    windows = windows_in(tmp_path, settings)
    send(windows.database, settings, *(f"hot {number}" for number in range(8)), tenant="hot")
    send(windows.database, settings, "calm 0", "calm 1", tenant="calm")
    first = texts_of(tmp_path, windows.seal())[0]
    assert sorted(first) == ["calm 0", "calm 1", "hot 0", "hot 1"]


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=7), max_size=6), st.integers(1, 4))
def test_every_request_is_in_one_window(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[str]], most: int
) -> None:
    folder = tmp_path_factory.mktemp("windows")
    settings = make_settings(folder, {"seal_records": most})
    windows = windows_in(folder, settings)
    sent: list[str] = []
    for number, tenants in enumerate(rounds):
        for place, tenant in enumerate(tenants):
            sent.append(f"{number} {place}")
            send(windows.database, settings, sent[-1], tenant=tenant)
        windows.seal()
    found = [text for texts in texts_of(folder, names(windows)) for text in texts]
    assert Counter(found) == Counter(sent)
    assert all(len(texts) <= most for texts in texts_of(folder, names(windows)))
    windows.database.dispose()


def names(windows: Windows) -> list[str]:
    return [window.name for window in PlannedWindows(windows.database, NAME).unplanned(1000)]


@pytest.mark.parametrize("point", ["window-chosen", "window-written"])
def test_dead_while_it_seals_the_next_one_finishes_the_window(tmp_path: Path, point: str) -> None:
    settings = make_settings(tmp_path)
    database = open_requests(tmp_path)
    send(database, settings, "a", "b")
    database.dispose()
    in_dying_child(lambda: windows_in(tmp_path, settings).seal(), point, 1)
    windows = windows_in(tmp_path, settings)
    send(windows.database, settings, "c")
    assert texts_of(tmp_path, windows.seal()) == [["a", "b"], ["c"]]
    assert texts_of(tmp_path, names(windows)) == [["a", "b"], ["c"]]


def test_a_cancelled_request_is_in_no_window_and_a_sealed_one_is_not_cancelled(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    windows = windows_in(tmp_path, settings)
    store = RequestStore(windows.database)
    first, second = send(windows.database, settings, "a", "b")
    found = store.find(first)
    assert found is not None
    assert store.cancel(found) and store.cancel(found), "once more changes nothing"
    assert texts_of(tmp_path, windows.seal()) == [["b"]]
    sealed = store.find(second)
    assert sealed is not None and not store.cancel(sealed)
    assert store.totals(NAME)["cancelled"] == 1


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """One PostgreSQL for all tests of this module, which have pipelines of their own."""
    with running_server() as running:
        yield running.url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RequestsDatabase]:
    url = (
        f"sqlite:///{tmp_path}/requests.db"
        if request.param == "sqlite"
        else request.getfixturevalue("server")
    )
    opened = RequestsDatabase(url)
    yield opened
    opened.dispose()


def test_one_key_makes_one_request(database: RequestsDatabase, tmp_path: Path) -> None:
    settings, store = make_settings(tmp_path), RequestStore(database)
    key = new_id()

    def accept(text: str, tenant: str = "a") -> Accepted:
        return store.accept([make_request(text, settings, tenant, key)])[0]

    first = accept("hello")
    assert first.is_new
    again = accept("hello")
    assert (again.id, again.is_new, again.same_body) == (first.id, False, True)
    assert not accept("other").same_body
    assert accept("hello", "b").is_new, "another tenant's key is another key"
    twice = store.accept([make_request("x", settings, "c", key), make_request("x", settings, "c", key)])
    assert [one.is_new for one in twice] == [True, False]
    assert twice[0].id == twice[1].id


def test_a_window_is_sealed_on_any_database(database: RequestsDatabase, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, name=f"p{new_id()[-12:]}")
    windows = Windows(database, settings, open_storage(settings.output.root))
    send(database, settings, *(str(number) for number in range(7)), tenant="a")
    sealed = texts_of(tmp_path, windows.seal())
    assert sorted(map(len, sealed)) == [1, 3, 3]
    assert sorted(text for texts in sealed for text in texts) == sorted(map(str, range(7)))


def test_ids_grow_and_differ() -> None:
    made = [new_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert [name[:13] for name in made] == sorted(name[:13] for name in made)
    assert all(name[14] == "7" and name[19] in "89ab" for name in made)


def test_what_tenants_have_and_what_leaves_is_told_by_every_database(
    database: RequestsDatabase, tmp_path: Path
) -> None:
    name = "leaving"
    settings = make_settings(tmp_path).model_copy(update={"name": name})
    send(database, settings, "a", "b", tenant="alice")
    send(database, settings, "c", tenant="bob")
    pipeline = open_asks(tmp_path, settings)
    assert open_by_tenant(database, pipeline.ledger, name) == {"alice": 2, "bob": 1}
    source = request_source(settings, pipeline.storage, database)
    plan_requests(pipeline, source)
    [waiting] = send(database, settings, "d", tenant="bob")
    assert open_by_tenant(database, pipeline.ledger, name) == {"alice": 2, "bob": 2}
    compute(pipeline, database)
    assert open_by_tenant(database, pipeline.ledger, name) == {}
    assert accepted_today(database, name) == {"alice": 2, "bob": 2}
    removals = Removals(database, name)
    for _ in range(2):
        removals.begin(1, 2, 1)
        [window] = removals.windows(1)
        removals.remove_requests(window)
    assert removals.begun() == [1]
    removals.end(1)
    removals.remove_cancelled(time.time())
    totals = RequestStore(database).totals(name)
    assert (removals.begun(), totals["removed_completed"], totals["removed_failed"]) == ([], 2, 1)
    assert RequestStore(database).find(waiting) is not None
    assert [one.id for one in RequestStore(database).newest(name, None, None, 10)] == [waiting]
