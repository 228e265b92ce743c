"""`merge_ready`: asks for the merge once, when there is something to publish."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets.notifications.events import publishing_blocked
from batch_assets.orchestration.sensors import merge_ready
from batch_assets_tests.fakes import find_parity
from batch_assets_tests.orchestration.deployments import (
    SHARD_ASSETS,
    Deployment,
    deploy,
    make_settings,
    write_shards,
)


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    find_parity(monkeypatch)
    write_shards(tmp_path, 2)
    with deploy(tmp_path, make_settings(tmp_path, automation=True)) as deployment:
        deployment.plan()
        yield deployment


def asked(deployment: Deployment) -> list[str | None]:
    """Run keys of the merges asked for; Dagster launches each key once."""
    requests = deployment.tick("merge_ready").run_requests or ()
    for request in requests:
        assert [key.to_user_string() for key in request.asset_selection or ()] == ["texts/merged_embeddings"]
    return [request.run_key for request in requests]


def test_it_asks_once_when_all_shards_are_collected(deployment: Deployment, tmp_path: Path) -> None:
    first, second = deployment.keys
    assert asked(deployment) == []
    assert deployment.materialize(*SHARD_ASSETS, shards=(first, first)).success
    assert asked(deployment) == []
    assert deployment.materialize(*SHARD_ASSETS, shards=(second, second)).success
    [once] = asked(deployment)
    assert asked(deployment) == [once]
    assert deployment.materialize("merged_embeddings").success
    assert asked(deployment) == []
    write_shards(tmp_path, 1, "b")
    third = deployment.plan()[-1]
    assert asked(deployment) == []
    assert deployment.materialize(*SHARD_ASSETS, shards=(third, third)).success
    [again] = asked(deployment)
    assert again != once


def test_a_merge_that_failed_is_asked_for_again_but_not_one_that_is_blocked(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = deployment.keys
    assert deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success
    hour = [1_000]
    monkeypatch.setattr(merge_ready.time, "time", lambda: hour[0] * 3_600.0)
    [first] = asked(deployment)
    hour[0] += 1  # the run that was asked for has failed, of a store that did not answer
    [second] = asked(deployment)
    assert second != first
    row = deployment.ledger.pipeline("texts")
    assert row is not None
    deployment.ledger.notice_once(publishing_blocked("texts", row.revision, "too many failed").key)
    told = asked(deployment)
    hour[0] += 1
    assert asked(deployment) == told


def test_after_a_merge_by_hand_there_is_nothing_to_ask_for(deployment: Deployment) -> None:
    keys = deployment.keys
    assert deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success
    assert deployment.materialize("merged_embeddings").success
    assert deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success
    assert asked(deployment) == []


def test_without_automation_it_asks_for_nothing(tmp_path: Path) -> None:
    write_shards(tmp_path, 1)
    with deploy(tmp_path) as deployment:
        [key] = deployment.plan()
        assert deployment.materialize(*SHARD_ASSETS, shards=(key, key)).success
        assert asked(deployment) == []
