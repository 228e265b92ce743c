"""A store that ignores conditions on writes, or does not know them, is found out before anything is committed there."""

from pathlib import Path
from typing import Any

import pytest

from batch_assets import paths
from batch_assets.control.pipeline import open_pipeline, take_root
from batch_assets.errors import ConfigurationError, LastingStorageError
from batch_assets.retry_policy import TICK_SECONDS
from batch_assets.storage import open_storage
from batch_assets.storage.conditions import require_conditions
from batch_assets_tests import pauses
from batch_assets_tests.control.builders import make_settings, open_ledger, write_input
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.storage.stores import Asked, Store, Told, fault

CONDITIONS = ("If-None-Match", "If-Match", "x-goog-if-generation-match")


@pytest.mark.parametrize("uri", ["s3://bucket/out", "gs://bucket/out", "az://bucket/out"])
def test_a_store_that_heeds_conditions_is_taken_and_left_as_it_was(store: Store, uri: str) -> None:
    require_conditions(open_storage(uri))
    assert store.objects == {}
    assert any(asked.key.startswith("out/jobs/probes/") for asked in store.asked)


def ignore_create(asked: Asked) -> None:
    del asked.headers["If-None-Match"]


def ignore_update(asked: Asked) -> None:
    del asked.headers["If-Match"]


def never_match(asked: Asked) -> Told | None:
    return fault(412, "PreconditionFailed") if "If-Match" in asked.headers else None


def unknown(asked: Asked) -> Told | None:
    return fault(501, "NotImplemented") if any(name in asked.headers for name in CONDITIONS) else None


def may_not_delete(asked: Asked) -> Told | None:
    return fault(403, "AccessDenied", "no s3:DeleteObject") if "delete" in asked.query else None


@pytest.mark.parametrize(
    ("refuse", "said"),
    [
        (
            ignore_create,
            r"s3://bucket/out: the store ignores the condition to create .*; name an output root",
        ),
        (
            ignore_update,
            r"s3://bucket/out: the store ignores the condition to replace .*; name an output root",
        ),
        (never_match, r"s3://bucket/out: the store does not recognize an object's version"),
        (unknown, r"s3://bucket/out/jobs/probes/\w+: NotImplemented; .*conditional writes"),
    ],
)
def test_a_store_that_does_not_is_refused_by_the_pipeline(
    store: Store, tmp_path: Path, refuse: Any, said: str
) -> None:
    store.refuse = refuse
    write_input(tmp_path, 2)
    settings = make_settings(tmp_path, output={"root": "s3://bucket/out"})
    ledger, host = open_ledger(tmp_path), FakeHost()
    pipeline = open_pipeline(settings, ledger, host.executor(settings))
    with pytest.raises(ConfigurationError, match=said):
        take_root(pipeline)
    assert store.objects == {}


def test_a_root_is_tried_out_when_it_is_taken_and_not_each_time(store: Store, tmp_path: Path) -> None:
    write_input(tmp_path, 2)
    settings = make_settings(tmp_path, output={"root": "s3://bucket/out"})
    ledger, host = open_ledger(tmp_path), FakeHost()
    for asked_for in (True, False):
        take_root(open_pipeline(settings, ledger, host.executor(settings)))
        assert any("probes" in asked.key for asked in store.asked) is asked_for
        store.asked.clear()
    assert list(store.objects) == ["out/pipeline.json"]


def test_what_a_killed_probe_has_left_is_deleted_by_a_later_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage("s3://bucket/out")
    store.refuse = may_not_delete
    require_conditions(storage)
    store.refuse = lambda asked: None
    theirs = [paths.probe("1" * 16), f"{paths.PROBES}/of somebody else"]
    for path in theirs:
        storage.write(path, b"1")
    require_conditions(storage)
    assert len(store.objects) == 3  # it may be at work still
    monkeypatch.setattr("batch_assets.storage.probes.KEPT_SECONDS", -1.0)
    require_conditions(storage)
    assert sorted(store.objects) == [f"out/{path}" for path in theirs]


def test_a_store_that_goes_away_meanwhile_is_waited_for_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_assets.storage.reach.AWAY_SECONDS", 60.0)
    store.refuse = lambda asked: fault(503, "SlowDown", "not now") if store.writes else None
    before = pauses.skipped_seconds()
    with pauses.skipping(lambda: None), pytest.raises(LastingStorageError, match="SlowDown: not now"):
        require_conditions(open_storage("s3://bucket/out"))
    assert pauses.skipped_seconds() - before <= 60 + TICK_SECONDS


def test_an_answer_that_was_lost_is_no_fault_of_the_store(store: Store) -> None:
    def refuse(asked: Asked) -> Told | None:
        # As if the write had been carried out before: its second sending meets its own work.
        if asked.method == "PUT" and asked.body.endswith((b" 1\n", b" 3\n")):
            store.writes += 1
            store.objects[asked.key] = (asked.body, store.writes)
            return fault(412, "PreconditionFailed")
        return None

    store.refuse = refuse
    require_conditions(open_storage("s3://bucket/out"))


def test_who_may_not_delete_may_work_all_the_same(store: Store) -> None:
    store.refuse = may_not_delete
    require_conditions(open_storage("s3://bucket/out"))
    assert len(store.objects) == 1
