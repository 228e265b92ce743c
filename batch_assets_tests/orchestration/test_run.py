"""A run and the ledger: how long it may be silent, and what is told of a step whose end cannot be noted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from batch_assets.ledger.database import LedgerAway
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.schema import runs
from batch_assets.retry_policy import RUN_SECONDS
from batch_assets_tests.orchestration.deployments import (
    SHARD_ASSETS,
    Deployment,
    deploy,
    failure_of,
    write_shards,
)


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    write_shards(tmp_path, 1)
    with deploy(tmp_path) as deployment:
        deployment.plan()
        yield deployment


def seconds_left(deployment: Deployment) -> float:
    """How long the newest run may be silent before another machine of this one's name takes it for dead."""
    newest = sa.select(runs.c.alive_until).order_by(sa.text("rowid DESC"))
    with deployment.ledger._database.read() as connection:
        return connection.execute(newest).scalars().all()[0] - deployment.ledger.now()


def test_a_run_may_be_silent_for_long_after_a_step_and_not_within(deployment: Deployment) -> None:
    within: list[float] = []
    deployment.host.before = lambda _: within.append(seconds_left(deployment))
    key = deployment.keys[0]
    assert deployment.materialize(*SHARD_ASSETS, shards=(key, key)).success
    assert within and max(within) <= RUN_SECONDS
    assert seconds_left(deployment) > RUN_SECONDS


def test_what_ended_a_step_is_told_where_the_ledger_is_away_as_it_ends(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise LedgerAway("ledger postgresql://somewhere: refused; start it again")

    key = deployment.keys[0]
    assert deployment.materialize(*SHARD_ASSETS[:2], shards=(key, key)).success
    monkeypatch.setattr(Ledger, "note_step_end", refuse)
    deployment.host.model_is_missing = True
    failed = deployment.materialize("embedding_outputs", shards=(key, key))
    assert "weights cannot be loaded" in failure_of(failed)
    deployment.host.model_is_missing = False
    assert deployment.materialize("embedding_outputs", shards=(key, key)).success, "it has done its work"
