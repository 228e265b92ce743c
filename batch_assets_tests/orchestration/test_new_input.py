"""`new_input`: what it asks for, when, and what it leaves alone."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_assets.ledger.holder import Holder
from batch_assets.ledger.states import State
from batch_assets.orchestration.partitions import RANGE_END, RANGE_START
from batch_assets.orchestration.sensors import new_input
from batch_assets_tests.orchestration.deployments import (
    SHARD_ASSETS,
    Deployment,
    deploy,
    make_settings,
    write_shards,
)


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """A pipeline with automation, its source of three shards not planned yet."""
    write_shards(tmp_path, 3)
    with deploy(tmp_path, make_settings(tmp_path, automation=True)) as deployment:
        yield deployment


def asked(result: dg.SensorResult) -> list[tuple[list[str], dict[str, str]]]:
    """(assets, tags) of the runs asked for."""
    return [
        ([key.path[-1] for key in request.asset_selection or ()], dict(request.tags))
        for request in result.run_requests or ()
    ]


def said(result: dg.SensorResult) -> str:
    assert result.skip_reason is not None
    return result.skip_reason.skip_message or ""


PLAN = (["shard_plan"], {})


def test_a_source_that_was_never_planned_is(deployment: Deployment) -> None:
    first = deployment.tick("new_input")
    assert asked(first) == [PLAN]
    second = deployment.tick("new_input", first.cursor)
    assert not second.run_requests
    assert "have come to nothing" in said(second)


def test_shards_that_replace_all_others_get_their_runs_at_once(
    deployment: Deployment, tmp_path: Path
) -> None:
    keys = deployment.plan()
    cursor = deployment.tick("new_input").cursor
    assert deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success
    write_shards(tmp_path, 2)
    assert deployment.materialize("shard_plan", tags={"batch_assets/replace": "true"}).success
    new = deployment.keys[len(keys) :]
    # No shard is collected now, as when the first runs were asked for.
    result = deployment.tick("new_input", cursor)
    assert asked(result) == [(SHARD_ASSETS, {RANGE_START: new[0], RANGE_END: new[-1]})]


def test_planned_shards_get_their_runs(deployment: Deployment) -> None:
    keys = deployment.plan()
    result = deployment.tick("new_input")
    assert asked(result) == [(SHARD_ASSETS, {RANGE_START: keys[0], RANGE_END: keys[-1]})]
    assert deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success
    done = deployment.tick("new_input", result.cursor)
    assert not done.run_requests
    assert "no pipeline with automation: true has new input" in said(done)


def test_new_files_are_planned_at_once(deployment: Deployment, tmp_path: Path) -> None:
    cursor = deployment.tick("new_input").cursor
    deployment.plan()
    cursor = deployment.tick("new_input", cursor).cursor
    write_shards(tmp_path, 1, "b")
    assert PLAN in asked(deployment.tick("new_input", cursor))
    assert len(deployment.plan()) == 4


def test_runs_are_of_a_hundred_shards_without_gaps(tmp_path: Path) -> None:
    write_shards(tmp_path, 250)
    with deploy(tmp_path, make_settings(tmp_path, automation=True)) as deployment:
        keys = deployment.plan()
        deployment.ledger.move("texts", [keys[7]], {State.PLANNED}, State.PREPARED)
        deployment.ledger.move("texts", [keys[7]], {State.PREPARED}, State.READY)
        claim = deployment.ledger.claim("texts", keys[7], Holder("another-host", "boot", 4711, "1"))
        assert claim is not None
        result = deployment.tick("new_input")
        ranges = [(tags[RANGE_START], tags[RANGE_END]) for _, tags in asked(result)]
        assert ranges == [
            (keys[0], keys[6]),
            (keys[8], keys[107]),
            (keys[108], keys[207]),
            (keys[208], keys[249]),
        ]


def somebody():
    from batch_assets.ledger.holder import Holder

    return Holder("another-host", "boot", 4711, "1")


def test_nothing_is_asked_for_while_a_run_is_under_way(deployment: Deployment) -> None:
    deployment.plan()
    job = deployment.definitions.resolve_implicit_global_asset_job_def()
    selection = frozenset({dg.AssetKey(["texts", "embedding_outputs"])})
    run = deployment.instance.create_run_for_job(job_def=job, asset_selection=selection)
    assert not deployment.tick("new_input").run_requests
    deployment.instance.report_run_failed(run)
    assert len(deployment.tick("new_input").run_requests or ()) == 1


def test_what_keeps_failing_is_asked_for_every_ten_minutes_only(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = deployment.plan()
    deployment.host.model_is_missing = True
    cursor = deployment.tick("new_input").cursor
    assert not deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success
    waiting = deployment.tick("new_input", cursor)
    assert not waiting.run_requests
    assert "texts: the last runs asked for have come to nothing" in said(waiting)
    monkeypatch.setattr(new_input, "NEW_INPUT_ASKED_AGAIN_SECONDS", 0.0)
    assert len(deployment.tick("new_input", waiting.cursor).run_requests or ()) == 1


def test_touched_and_removed_files_are_named_and_nothing_is_planned(
    deployment: Deployment, tmp_path: Path
) -> None:
    write_shards(tmp_path, 1, "b")
    keys = deployment.plan()
    assert deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success
    (tmp_path / "in" / "a.jsonl").unlink()
    write_shards(tmp_path, 2, "b")
    result = deployment.tick("new_input")
    assert not result.run_requests
    assert "1 files touched (b.jsonl), 1 files removed (a.jsonl)" in said(result)
    assert "batch-assets plan texts --replace" in said(result)
    states = {file.path: file.state for file in deployment.ledger.files("texts")}
    assert states == {"a.jsonl": "removed", "b.jsonl": "touched"}


def test_files_behind_the_limit_are_no_news(tmp_path: Path) -> None:
    write_shards(tmp_path, 1)
    settings = make_settings(tmp_path)
    limited = settings.source.model_copy(update={"limit": 4})
    with deploy(tmp_path, settings.model_copy(update={"source": limited, "automation": True})) as deployment:
        assert len(deployment.plan()) == 1
        write_shards(tmp_path, 1, "b")
        assert PLAN not in asked(deployment.tick("new_input"))


def test_without_automation_nothing_is_asked_for(tmp_path: Path) -> None:
    write_shards(tmp_path, 1)
    with deploy(tmp_path) as deployment:
        assert not deployment.tick("new_input").run_requests
        deployment.plan()
        assert not deployment.tick("new_input").run_requests


def test_a_stopped_pipeline_is_left_alone(deployment: Deployment) -> None:
    deployment.plan()
    deployment.ledger.stop("texts")
    assert not deployment.tick("new_input").run_requests


def test_a_source_that_cannot_be_read_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_shards(tmp_path / name, 1)
    first, second = (make_settings(tmp_path / name, name, automation=True) for name in ("first", "second"))
    with deploy(tmp_path, first, second) as deployment:
        deployment.plan()
        (tmp_path / "first" / "in" / "a.jsonl").unlink()
        (tmp_path / "first" / "in").rmdir()
        result = deployment.tick("new_input")
        assert ["second", "shard_plan"] in [
            list(k.path) for r in result.run_requests for k in r.asset_selection
        ]


def test_shards_planned_elsewhere_become_partitions_before_their_run(deployment: Deployment) -> None:
    keys = deployment.plan()
    for key in keys[1:]:
        deployment.instance.delete_dynamic_partition("texts_shards", key)
    assert len(deployment.tick("new_input").run_requests or ()) == 1
    assert deployment.keys == keys


def test_a_partition_that_was_deleted_is_there_again_when_its_run_has_come_to_nothing(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = deployment.plan()
    deployment.instance.delete_dynamic_partition("texts_shards", keys[0])
    first = deployment.tick("new_input")
    assert first.run_requests
    # Nothing has moved ten minutes later: it is asked for again.
    monkeypatch.setattr(new_input, "NEW_INPUT_ASKED_AGAIN_SECONDS", 0.0)
    assert deployment.tick("new_input", first.cursor).run_requests
    assert set(deployment.keys) == set(keys)


def test_a_clock_that_was_ahead_does_not_keep_the_sensor_silent() -> None:
    nothing: Any = None
    tick = new_input.Tick(nothing, nothing, set())
    ahead = new_input.Asked(mark="1:0", at=time.time() + 86_400)
    assert new_input._due(ahead, "1:0", "texts", tick)
    assert not new_input._due(ahead, "1:0", "texts", tick)
