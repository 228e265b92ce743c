"""`batch-assets run` of a second stage: it takes what is there, waits for the rest, knows when nothing will come."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.errors import NotReady
from batch_assets.executors.bedrock.account import BedrockAccount
from batch_assets.ledger.states import State
from batch_assets.orchestration import following
from batch_assets.orchestration.driver import Driver
from batch_assets.sharding.plan import Shard
from batch_assets_tests.command import published, some_records
from batch_assets_tests.control.chains import (
    KEYS,
    PER_SHARD,
    A,
    B,
    C,
    Chain,
    embed,
    run_first,
    second_settings,
    write_input,
)
from batch_assets_tests.fakes import FakeHost, find_parity
from batch_assets_tests.rehearsed import DIMENSIONS, ROLE, TITAN, Rehearsal
from batch_assets_tests.waiting import PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.02)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    write_input(tmp_path)
    chain = Chain(tmp_path)
    plan_source(chain.first())
    return chain


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def drive(chain: Chain, instance: dg.DagsterInstance, say: Callable[[str], None], host: FakeHost) -> Driver:
    driver = Driver(second_settings(chain.folder), instance, chain.ledger, host, say=say)
    driver.plan()
    return driver


def test_what_is_ready_is_done_and_the_rest_is_waited_for(chain: Chain, instance: dg.DagsterInstance) -> None:
    """The upstream works whenever the second stage says that it waits, and once plans more."""
    embed(chain.first(), [C])
    said, host, done = list[str](), FakeHost(), list[list[str]]()

    def work(news: str) -> None:
        said.append(news)
        done.append(list(host.computed))
        embed(chain.first(), [A])
        write_input(chain.folder, 1, "b")
        embed(chain.first(), ["g0002-00000", B])

    driver = drive(chain, instance, work, host)
    driver.embed()
    assert said == ["waiting for 2 shards of pipeline first"]
    assert done == [[C]]
    assert host.computed == [C, A, B, "g0002-00000"]
    assert chain.states() == ["collected"] * 4


def test_an_upstream_at_which_nobody_works_is_named(
    chain: Chain, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(chain.first(), [B])
    monkeypatch.setattr("batch_assets.control.chaining.QUIET_SECONDS", 0.0)
    host = FakeHost()
    driver = drive(chain, instance, lambda _: None, host)
    with pytest.raises(
        NotReady, match=rf"2 shards wait for pipeline first \({A}, {C}\), .*`batch-assets run first`"
    ):
        driver.embed()
    assert host.computed == [B]


def test_what_the_upstream_has_given_up_is_told_and_not_waited_for(
    chain: Chain, instance: dg.DagsterInstance
) -> None:
    first, said = chain.first(), list[str]()
    embed(first, [A, B])
    list(prepare_shards(first, [C]))
    queue_shards(first, [C])
    claim = chain.ledger.claim("first", C, first.holder)
    assert claim is not None
    chain.ledger.fail(claim, "its file is gone", max_attempts=0)
    driver = drive(chain, instance, said.append, FakeHost())
    driver.embed()
    assert said == [
        f"1 shards are given up in pipeline first ({C}: its file is gone), and so are missing here; mend it, then "
        "`batch-assets retry first`"
    ]
    with pytest.raises(Exception, match=rf"1 of 3 shards of second are missing: {C} \(planned\)"):
        driver.merge()


def test_the_upstream_is_killed_in_the_middle_and_goes_on(
    chain: Chain, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By kill -9 while it holds its second shard; somebody starts it again, and the second stage ends."""
    find_parity(monkeypatch)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([run_first.__module__])
    hung = context.Event()
    doomed = context.Process(target=run_first, args=(chain.folder, hung), daemon=True)
    doomed.start()
    assert hung.wait(PATIENCE_SECONDS)
    again = context.Process(target=run_first, args=(chain.folder, None), daemon=True)
    host, seen = FakeHost(), list[dict[str, State]]()

    def kill_once(shard: Shard) -> None:
        if doomed.exitcode is None:
            seen.append({row.key: row.state for row in chain.ledger.shards("first")})
            assert doomed.pid is not None
            os.kill(doomed.pid, signal.SIGKILL)
            doomed.join(PATIENCE_SECONDS)
            again.start()

    host.before = kill_once
    driver = drive(chain, instance, lambda _: None, host)
    driver.embed()
    again.join(PATIENCE_SECONDS)
    assert (doomed.exitcode, again.exitcode) == (-signal.SIGKILL, 0)
    # The first shard's next stage began while the upstream was at its second one.
    assert seen == [{A: State.COLLECTED, B: State.RUNNING, C: State.READY}]
    assert sorted(host.computed) == KEYS
    driver.merge()
    expected = [record["id"] for record in some_records(3 * PER_SHARD)]
    assert published(chain.folder / "two")["record_id"].to_list() == expected


def test_a_second_stage_at_a_service(
    tmp_path: Path, instance: dg.DagsterInstance, rehearse: Callable[..., Rehearsal]
) -> None:
    """Bedrock renders and joins what the upstream has embedded; the rest is there as rejected."""
    write_input(tmp_path, bad=[1])
    chain = Chain(tmp_path)
    embed(chain.first(), [B])
    rehearsal = rehearse(quotas={"min_records": 1})
    executor = {
        "type": "bedrock",
        "role_arn": ROLE,
        "model_id": TITAN,
        "staging": f"s3://{rehearsal.bucket}/staging/",
        "poll_seconds": 0.01,
    }
    settings = second_settings(tmp_path, executor=executor, model={"dimensions": DIMENSIONS})

    def work(news: str) -> None:
        if news.startswith("waiting for"):
            assert chain.states() == ["planned", "collected", "planned"]
            embed(chain.first())

    driver = Driver(settings, instance, chain.ledger, BedrockAccount(), say=work)
    driver.plan()
    driver.embed()
    driver.merge()
    rows = published(tmp_path / "two")
    expected = [record["id"] for number, record in enumerate(some_records(12)) if number != 1]
    assert rows["record_id"].to_list() == expected
    totals = chain.ledger.totals("second")
    assert (totals.planned, totals.embedded, totals.rejected, totals.failed) == (12, 11, 1, 0)
