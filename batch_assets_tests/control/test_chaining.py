"""Two stages in one ledger: who may begin when, what is accounted for, and what a change upstream does."""

from pathlib import Path

import polars as pl
import pytest

from batch_assets.control.chaining import (
    look_upstream,
    ready_shards,
    startable_shards,
)
from batch_assets.control.collection import collect_shards
from batch_assets.control.housekeeping import read_source_news
from batch_assets.control.merging import merge_shards, publish_merge
from batch_assets.control.pipeline import open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preflight import check_configuration
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.control.preview import preview_plan
from batch_assets.control.shard_result import Result
from batch_assets.embeddings.accounting import Accounting
from batch_assets.errors import NotReady, SourceError
from batch_assets.ledger.states import State
from batch_assets.merge.publishing import open_current
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets.sharding.reading import read_shard
from batch_assets.storage import open_storage
from batch_assets_tests.command import published, some_records
from batch_assets_tests.control.chains import (
    KEYS,
    PER_SHARD,
    A,
    B,
    C,
    Chain,
    all_collected,
    change_text,
    embed,
    prepare,
    write_input,
)

DONE, WAITS = State.COLLECTED.value, State.PLANNED.value


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    write_input(tmp_path)
    return Chain(tmp_path)


def test_a_shard_begins_when_its_namesake_is_done_and_not_before(chain: Chain) -> None:
    with pytest.raises(SourceError, match="'first' has no plan"):
        plan_source(chain.second())
    assert not (chain.folder / "two").exists()
    plan_source(chain.first())
    second = chain.second()
    check_configuration(second.settings, second.executor)
    planned = plan_source(second)
    assert (planned.new_keys, planned.records) == (KEYS, 3 * PER_SHARD)
    assert embed(chain.first(), [B])[0].result is Result.COLLECTED
    assert ready_shards(second.settings, chain.ledger, KEYS) == {B}
    [startable] = startable_shards(second.settings, chain.ledger, [State.PLANNED, State.PREPARED])
    assert startable.key == B
    told = prepare(second)
    assert (told[B].valid, told[B].waits) == (PER_SHARD, "")
    assert told[A].waits == (
        f"shard {A} waits for the shard of the same name in pipeline first, not collected there yet; see "
        "`batch-assets status first`"
    )
    assert [row.state for row in queue_shards(second, KEYS)] == [State.PLANNED, State.READY, State.PLANNED]
    results = {result.key: result.result for result in collect_shards(second, KEYS)}
    assert results == {A: Result.NOT_READY, B: Result.COLLECTED, C: Result.NOT_READY}
    assert chain.states() == [WAITS, DONE, WAITS]
    with pytest.raises(NotReady, match=f"2 of 3 shards of second are missing: {A} "):
        merge_shards(second)


def test_another_ledger_goes_by_the_commit_markers(chain: Chain) -> None:
    embed(chain.first(), [A, C])
    other = Chain(chain.folder, "other")
    second = other.second()
    plan_source(second)
    assert ready_shards(second.settings, other.ledger, KEYS) == {A, C}
    [a, c] = startable_shards(second.settings, other.ledger, [State.PLANNED], limit=5)
    assert (a.key, c.key) == (A, C)
    waiting = look_upstream(second.settings, other.ledger)
    assert (waiting.keys, waiting.at_work, waiting.ready) == ([B], False, True)
    # The first ledger has lost the root of `first` to this one: it does not know better any more.
    embed(other.first(), [B])
    assert ready_shards(second.settings, chain.ledger, KEYS) == set(KEYS)


def test_everything_is_accounted_for_through_both_stages(tmp_path: Path) -> None:
    write_input(tmp_path, bad=[1, 2, 9])
    chain = Chain(tmp_path)
    assert all_collected(embed(chain.first()))
    second = chain.second()
    assert all_collected(embed(second))
    publish_merge(second, merge_shards(second))
    manifest = open_current(open_storage(f"{tmp_path}/two"))
    assert manifest is not None
    assert manifest.accounting == Accounting(12, 9, 3, 0)
    rows = published(tmp_path / "two")
    expected = [record for number, record in enumerate(some_records(12)) if number not in (1, 2, 9)]
    assert rows["record_id"].to_list() == [record["id"] for record in expected]
    assert rows["source_file"].unique(maintain_order=True).to_list() == [f"{key}.parquet" for key in KEYS]
    assert rows["source_row"].to_list() == [0, 1, 0, 1, 2, 3, 0, 1, 2]
    failures = pl.read_parquet(tmp_path / "two" / "shards" / A / "failures-*.parquet")
    assert failures.select("record_id", "source_file", "source_row", "stage", "error_code").rows() == [
        ("record-1", f"{A}.parquet", 2, "reject", "rejected_upstream"),
        ("record-2", f"{A}.parquet", 3, "reject", "rejected_upstream"),
    ]
    assert failures["error_message"][0].startswith("empty_text: ")


def test_a_shard_that_the_upstream_computed_again_is_touched_until_it_is_replaced(chain: Chain) -> None:
    first, second = chain.first(), chain.second()
    embed(first)
    embed(second)
    news = read_source_news(second.settings, chain.ledger, None)
    assert (news.new, news.touched, news.unplanned) == ([], [], False)
    # With the same vectors of the same texts nothing has changed, whoever computed them.
    assert all_collected(embed(first, recompute=True))
    news = read_source_news(second.settings, chain.ledger, news.cursor)
    assert news.touched == []
    recompute_changed(chain, B)
    news = read_source_news(second.settings, chain.ledger, news.cursor)
    assert news.touched == [B]
    assert file_states(chain) == ["planned", "touched", "planned"]
    assert read_source_news(second.settings, chain.ledger, news.cursor).touched == []
    [note] = plan_source(second).notes
    assert note == (
        f"1 shards are touched: the upstream has computed them again ({B}); they stay as they are; see "
        "`plan --replace`"
    )
    assert prepare(second)[B].error.startswith(f"shards:{chain.folder}/one/{B}.parquet: touched since shard")
    assert chain.states() == [DONE] * 3
    [note] = plan_source(second, replace=True).notes
    assert note == f"1 shards are made anew: the upstream has computed them again ({B})"
    assert chain.states() == [DONE, WAITS, DONE]
    chain.host.computed.clear()
    assert all_collected(embed(second))
    assert chain.host.computed == [B]
    assert plan_source(second).notes == []
    assert file_states(chain) == ["planned"] * 3
    publish_merge(second, merge_shards(second))
    assert published(chain.folder / "two")["text"][PER_SHARD] == "another text"


def test_what_was_only_prepared_is_prepared_anew_by_itself(chain: Chain) -> None:
    first, second = chain.first(), chain.second()
    embed(first)
    plan_source(second)
    prepare(second)
    queue_shards(second, [A, B])
    recompute_changed(chain, B)
    # Asked for at once, it is no longer what was checked ...
    [result] = collect_shards(second, [B])
    assert result.result is Result.EXHAUSTED
    assert "touched since shard" in result.message
    chain.ledger.retry("second")
    # ... and taken up again from its input on, it is.
    assert prepare(second)[B].error == ""
    queue_shards(second, KEYS)
    assert all_collected(list(collect_shards(second, KEYS)))
    [records] = read_shard(second.settings, second.plan_shards([B])[B])
    assert records.texts[0] == "another text"


def test_a_touched_shard_is_known_to_a_new_ledger_too(chain: Chain) -> None:
    embed(chain.first())
    embed(chain.second())
    recompute_changed(chain, C)
    other = Chain(chain.folder, "other")
    assert len(plan_source(other.second()).notes) == 1  # by the markers alone
    other.first()
    second = other.second()
    assert "(g0001-00002)" in plan_source(second, replace=True).notes[0]
    assert other.states() == [DONE, DONE, WAITS]


def test_what_the_upstream_replaced_is_replaced_here_too(chain: Chain) -> None:
    first, second = chain.first(), chain.second()
    embed(first)
    embed(second)
    write_input(chain.folder, 1, "b")
    plan_source(first)
    news = read_source_news(second.settings, chain.ledger, None)
    assert news.new == ["g0002"]
    assert plan_source(second).new_keys == ["g0002-00000"]
    (chain.folder / "in" / "a.jsonl").unlink()
    plan_source(first, replace=True)
    assert plan_source(second).new_keys == []
    assert [row.key for row in chain.ledger.shards("second")] == ["g0002-00000"]
    assert ready_shards(second.settings, chain.ledger, [*KEYS, "g0002-00000"]) == set()


def test_what_is_waited_for(chain: Chain) -> None:
    first, second = chain.first(), chain.second()
    plan_source(first)
    plan_source(second)
    values = {"source": {"pipeline": "second", "uri": f"shards:{chain.folder}/two"}}
    third = parse_pipeline({**values, "output": {"root": f"{chain.folder}/three"}}, "third", "a test")
    plan_source(open_pipeline(third, chain.ledger, chain.host.executor(third)))
    waiting = look_upstream(second.settings, chain.ledger)
    assert (waiting.keys, waiting.at_work) == (KEYS, True)  # planned a moment ago
    chain.ahead = 61.0
    waiting = look_upstream(second.settings, chain.ledger)
    assert not waiting.at_work
    assert waiting.stands_still() == (
        f"3 shards wait for pipeline first ({', '.join(KEYS)}), and nobody is at work there; `batch-assets run "
        "first` goes on with it, then the same command here"
    )
    list(prepare_shards(first, KEYS))
    queue_shards(first, KEYS)
    claim = chain.ledger.claim("first", A, first.holder)
    assert claim is not None
    chain.ledger.fail(claim, "the file is gone", max_attempts=0)
    held = chain.ledger.claim("first", B, first.holder)
    assert held is not None
    chain.ahead += 59
    chain.ledger.heartbeat(first.holder)
    chain.ahead += 50
    waiting = look_upstream(second.settings, chain.ledger)
    assert (waiting.keys, waiting.at_work) == ([B, C], True)  # held
    assert look_upstream(third, chain.ledger).at_work  # `second` is quiet, and moves when `first` does
    assert waiting.given_up() == (
        f"1 shards are given up in pipeline first ({A}: the file is gone), and so are missing here; mend it, then "
        "`batch-assets retry first`"
    )
    chain.ledger.stop("first")
    assert not look_upstream(second.settings, chain.ledger).at_work
    assert not look_upstream(third, chain.ledger).at_work


def test_what_waits_for_a_person_upstream_is_not_waited_for(chain: Chain) -> None:
    first, second = chain.first(), chain.second()
    plan_source(first)
    plan_source(second)
    chain.ledger.set_deferred("first", True)
    chain.ledger.move("first", [A], [State.PLANNED], State.PREPARED)
    claim = chain.ledger.claim_preparation("first", A, first.holder)
    assert claim is not None and chain.ledger.enqueue(claim, "batch", PER_SHARD, 100, 0.0)
    chain.ahead = 61.0
    assert look_upstream(second.settings, chain.ledger).at_work  # it waits for a slot
    chain.ledger.block("first", "the service takes none of its jobs")
    assert not look_upstream(second.settings, chain.ledger).at_work


def test_a_preview_writes_nothing_and_says_what_is_not_known(chain: Chain) -> None:
    first = chain.first()
    plan_source(first)
    second = chain.second()
    scratch = open_storage(f"{chain.folder}/scratch")
    preview = preview_plan(second.settings, second.executor, second.ledger, scratch)
    assert preview.shards == [PER_SHARD] * len(KEYS)
    assert preview.notes == ["tokens are not known before the upstream has committed a shard"]
    embed(first, [B])
    assert len(preview_plan(second.settings, second.executor, second.ledger, scratch).sample) == PER_SHARD
    assert chain.ledger.shards("second") == []


def recompute_changed(chain: Chain, key: str) -> None:
    """Have the upstream commit a shard anew, with another text in its first row."""
    change_text(chain.folder, key)
    assert all_collected(embed(chain.first(), [key], recompute=True))


def file_states(chain: Chain) -> list[str]:
    return [file.state for file in chain.ledger.files("second")]
