"""What `retry` and an order to compute again take up, and what they leave alone."""

from pathlib import Path

from batch_assets.control.collection import collect_shards
from batch_assets.control.pipeline import open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.control.retrying import retry_shards
from batch_assets.control.shard_result import Result
from batch_assets.ledger.states import State
from batch_assets.retry_policy import DEATHS_FORGIVEN
from batch_assets_tests.control.builders import embed_all, make_settings, open_ledger, write_input
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.ledger.helpers import dead_process


def test_retry_of_one_shard_starts_no_other_stopped_one(tmp_path: Path) -> None:
    write_input(tmp_path, 3)
    settings, ledger, host = make_settings(tmp_path), open_ledger(tmp_path), FakeHost()
    pipeline = open_pipeline(settings, ledger, host.executor(settings))
    keys = plan_source(pipeline).all_keys
    list(prepare_shards(pipeline, keys))
    queue_shards(pipeline, keys)
    assert ledger.stop("texts") == keys
    assert retry_shards(settings, ledger, keys[1:2], recompute=False) == keys[1:2]
    assert [row.state for row in ledger.shards("texts")] == [State.STOPPED, State.READY, State.STOPPED]


def test_the_second_try_of_an_order_to_compute_again_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    write_input(tmp_path, 2)
    settings, ledger, host = make_settings(tmp_path), open_ledger(tmp_path), FakeHost()
    embed_all(settings, ledger, host)
    pipeline = open_pipeline(settings, ledger, host.executor(settings))
    keys = [row.key for row in ledger.shards("texts")]
    list(collect_shards(pipeline, keys[:1], recompute=True, run_id="first"))
    queue_shards(pipeline, keys, recompute=True, done_by=["second", "first"])
    list(collect_shards(pipeline, keys, recompute=True, run_id="second", done_by=["second", "first"]))
    assert host.computed == [*keys, keys[0], keys[1]]
    assert [row.run_id for row in ledger.shards("texts")] == ["first", "second"]


def test_a_shard_at_which_processes_die_is_given_up_in_the_end(tmp_path: Path) -> None:
    write_input(tmp_path, 2)
    settings = make_settings(tmp_path)
    pipeline = open_pipeline(settings, open_ledger(tmp_path), FakeHost().executor(settings))
    first, second = plan_source(pipeline).all_keys
    list(prepare_shards(pipeline, [first, second]))
    queue_shards(pipeline, [first, second])
    for _ in range(settings.executor.max_attempts + DEATHS_FORGIVEN):
        assert pipeline.ledger.claim(pipeline.name, first, dead_process()) is not None
    ended = {result.key: result for result in collect_shards(pipeline, [first, second])}
    assert [ended[key].result for key in (first, second)] == [Result.EXHAUSTED, Result.COLLECTED]
    assert "13 processes died" in ended[first].message
    retry_shards(settings, pipeline.ledger, [first], recompute=False)
    assert [result.result for result in collect_shards(pipeline, [first])] == [Result.COLLECTED]
