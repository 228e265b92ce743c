"""Two code locations of one Dagster deployment with one ledger: each brings its own pipeline to the end."""

from pathlib import Path

import dagster as dg
import pytest

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.triggers import TriggerState
from batch_assets_tests.command import published
from batch_assets_tests.fakes import FakeHost, find_parity
from batch_assets_tests.orchestration.deployments import Deployment, make_settings, write_shards

ROUNDS = 6


def locate(
    folder: Path, name: str, ledger: Ledger, instance: dg.DagsterInstance, **fields: object
) -> Deployment:
    """A code location with one pipeline of two shards."""
    write_shards(folder / name, 2)
    return Deployment([make_settings(folder / name, name, **fields)], ledger, instance, FakeHost())


def take_round(location: Deployment, cursors: dict[tuple[str, str], str | None]) -> set[str]:
    """What the daemon does for a location: its sensors' ticks, and the runs they ask for; the pipelines of those."""
    acted: set[str] = set()
    job = location.definitions.resolve_implicit_global_asset_job_def()
    for sensor in ("new_input", "job_completion", "merge_ready"):
        place = (location.name, sensor)
        result = location.tick(sensor, cursors.get(place))
        cursors[place] = result.cursor
        for event in result.asset_events:
            location.instance.report_runless_asset_event(event)
        for request in result.run_requests or ():
            acted |= {key.path[0] for key in request.asset_selection or ()}
            assert job.execute_in_process(
                instance=location.instance,
                asset_selection=list(request.asset_selection or ()),
                tags=request.tags,
            ).success
    return acted


def state_of(ledger: Ledger, key: str) -> TriggerState:
    order = ledger.trigger("second", key)
    assert order is not None
    return order.state


def test_each_location_brings_its_own_pipeline_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_parity(monkeypatch)
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    cursors: dict[tuple[str, str], str | None] = {}
    with dg.DagsterInstance.ephemeral() as instance:
        first = locate(tmp_path, "first", ledger, instance, automation=True)
        second = locate(tmp_path, "second", ledger, instance)
        order, _ = ledger.open_trigger("second", "by hand", "schedule")
        for _ in range(ROUNDS):
            assert take_round(first, cursors) <= {"first"}
        assert len(published(first.root)) == 8
        # What another location's pipeline was ordered to do is neither begun nor forgotten.
        assert state_of(ledger, order.key) is TriggerState.WAITING
        assert ledger.pipeline("second") is None
        for _ in range(ROUNDS):
            assert take_round(second, cursors) <= {"second"}
            assert take_round(first, cursors) == set()
        assert len(published(second.root)) == 8
        assert state_of(ledger, order.key) is TriggerState.DONE
        for location in (first, second):
            assert location.shown() == dict.fromkeys(location.keys, "MATERIALIZED")
    ledger.dispose()
