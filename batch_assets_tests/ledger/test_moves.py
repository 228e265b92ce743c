"""Plans, moves in bulk, counts and cursors."""

import pytest

from batch_assets.errors import SourceError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import MOVES, State
from batch_assets_tests.ledger.conftest import Clock
from batch_assets_tests.ledger.helpers import (
    DONE,
    ELSEWHERE,
    KEYS,
    ME,
    adopts,
    claimed,
    holds,
    make_ready,
    state,
)


def collect(ledger: Ledger, keys: list[str], fingerprint: str = "f1") -> None:
    for key in keys:
        assert adopts(ledger, key, fence=1, fingerprint=fingerprint)


def test_planning_twice_changes_nothing(ledger: Ledger) -> None:
    make_ready(ledger, KEYS[:1])
    before = ledger.shards("texts")
    ledger.add_shards("texts", 1, [(key, ordinal, 100, 5_000) for ordinal, key in enumerate(KEYS)])
    ledger.add_shards("texts", 1, [])
    assert ledger.shards("texts") == before
    ledger.add_shards("texts", 2, [(KEYS[0], 0, 9, 9), ("g0002-00000", 0, 7, 70)])
    row = ledger.pipeline("texts")
    assert row is not None
    assert (row.generation, row.planned, row.root, row.epoch) == (2, 507, "s3://bucket/out", 1)
    assert ledger.counts("texts") == {State.PLANNED: 5, State.READY: 1}
    with pytest.raises(LookupError, match="'unknown' is not attached"):
        ledger.add_shards("unknown", 1, [("g0001-00000", 0, 1, 1)])


def test_a_generation_that_only_supersedes_is_known(ledger: Ledger) -> None:
    ledger.add_shards("texts", 2, [], superseded=KEYS[:2])
    row = ledger.pipeline("texts")
    assert row is not None
    assert (row.generation, row.planned) == (2, 300)
    with pytest.raises(LookupError):
        ledger.add_shards("unknown", 2, [], superseded=KEYS)


def test_pipelines(ledger: Ledger) -> None:
    ledger.attach("images", "/data/images", 3)
    ledger.set_fingerprint("texts", "f1")
    assert [(p.name, p.epoch, p.fingerprint, p.planned) for p in ledger.pipelines()] == [
        ("images", 3, None, 0),
        ("texts", 1, "f1", 500),
    ]
    assert ledger.pipeline("unknown") is None
    assert ledger.counts("unknown") == {}
    assert ledger.totals("unknown").planned == 0


def test_a_later_epoch_or_another_root_begins_anew(ledger: Ledger) -> None:
    ledger.add_files("texts", 1, [("a.jsonl", 10, "v1")])
    ledger.stop("texts")
    ledger.attach("texts", "s3://bucket/out", 1)
    assert len(ledger.shards("texts")) == 5
    ledger.attach("texts", "s3://bucket/out", 3)
    assert ledger.shards("texts") == []
    assert ledger.counts("texts") == {}
    assert list(ledger.files("texts")) == []
    assert not ledger.stop_requested("texts")
    ledger.add_shards("texts", 1, [(KEYS[0], 0, 100, 5_000)])
    assert claimed(ledger).fence == 2_000_001
    ledger.attach("texts", "s3://bucket/out", 2)  # an answer that came late
    assert len(ledger.shards("texts")) == 1
    ledger.attach("texts", "s3://bucket/other", 1)
    assert ledger.shards("texts") == []


def test_a_move_takes_only_those_that_stand_where_it_says(ledger: Ledger) -> None:
    make_ready(ledger, KEYS[:2])
    moved = ledger.move(
        "texts", [*KEYS[1:3], "g0009-00000"], [State.PLANNED], State.PREPARED, rejected=4, tokens=9
    )
    assert moved == [KEYS[2]]
    row = ledger.shard("texts", KEYS[2])
    assert row is not None
    assert (row.state, row.rejected, row.tokens) == (State.PREPARED, 4, 9)
    assert ledger.totals("texts").rejected == 4
    assert ledger.totals("texts").tokens == 9


def test_a_held_shard_moves_by_its_claim_only(ledger: Ledger) -> None:
    claim = claimed(ledger, holder=ELSEWHERE)
    assert ledger.move("texts", KEYS, [State.RUNNING], State.STOPPED) == []
    assert holds(ledger, claim)


def test_only_what_waits_and_has_no_result_is_withdrawn(ledger: Ledger) -> None:
    computing, committed, waiting, *planned = KEYS
    claim = claimed(ledger, computing, holder=ELSEWHERE)
    collect(ledger, [committed])
    make_ready(ledger, [waiting])
    assert ledger.withdraw("texts", KEYS, "nobody wants it") == [waiting]
    row = ledger.shard("texts", waiting)
    assert row is not None
    assert (row.state, row.error) == (State.EXHAUSTED, "nobody wants it")
    assert holds(ledger, claim) and state(ledger, committed) is State.COLLECTED
    assert {state(ledger, key) for key in planned} == {State.PLANNED}
    assert ledger.ends("texts").failed == 100 + 3, "and those that failed of the committed one"
    assert ledger.retry("texts") == [waiting], "a person may order it all the same"


def test_every_move_that_is_none_is_refused(ledger: Ledger) -> None:
    for frm in State:
        for to in set(State) - MOVES[frm]:
            with pytest.raises(ValueError, match=f"cannot move from {frm} to {to}"):
                ledger.move("texts", KEYS, [frm], to)
    with pytest.raises(ValueError, match="by its claim only"):
        ledger.move("texts", KEYS, [State.READY], State.RUNNING)
    with pytest.raises(ValueError, match="by its claim only"):
        ledger.move("texts", KEYS, [State.RUNNING, State.COLLECTING], State.COLLECTED)
    with pytest.raises(ValueError, match="does not set fence"):
        ledger.move("texts", KEYS, [State.PLANNED], State.PREPARED, fence=9)
    assert ledger.counts("texts") == {State.PLANNED: 5}


def test_stop_and_start_again(ledger: Ledger) -> None:
    make_ready(ledger, KEYS[:3])
    running = ledger.claim("texts", KEYS[0], ME)
    assert running is not None
    assert ledger.stop("texts") == KEYS[1:3]
    assert ledger.stop_requested("texts")
    assert ledger.counts("texts") == {State.RUNNING: 1, State.STOPPED: 2, State.PLANNED: 2}
    assert ledger.claim("texts", KEYS[1], ME) is None
    assert ledger.start_again("texts", KEYS[2:]) == KEYS[2:3]
    assert ledger.start_again("texts") == KEYS[1:2]
    ledger.clear_stop("texts")
    assert not ledger.stop_requested("texts")
    assert ledger.claim("texts", KEYS[1], ME) is not None


def test_stale_shards_are_counted_until_they_are_embedded_again(ledger: Ledger) -> None:
    ledger.set_fingerprint("texts", "f1")
    collect(ledger, KEYS[:3])
    collect(ledger, KEYS[3:], "f2")
    totals = ledger.totals("texts")
    assert (totals.embedded, totals.stale, totals.stale_shards) == (485, 200, 2)
    ledger.set_fingerprint("texts", "f2")
    assert ledger.totals("texts").stale_shards == 3, "without touching a shard"
    assert ledger.mark_stale("texts", "f2") == KEYS[:3]
    assert ledger.mark_stale("texts", "f2") == []
    totals = ledger.totals("texts")
    assert (totals.embedded, totals.rejected, totals.stale_shards) == (194, 10, 3)
    claim = ledger.claim("texts", KEYS[0], ME)
    assert claim is not None
    assert (claim.attempt, claim.fence) == (1, 2)
    assert ledger.finish(claim, **{**DONE, "fingerprint": "f2"})
    assert ledger.totals("texts").stale_shards == 2
    assert adopts(ledger, KEYS[1], fence=2, fingerprint="f2")
    assert ledger.totals("texts").stale_shards == 1


def test_shards_are_read_by_state_key_and_page(ledger: Ledger) -> None:
    make_ready(ledger, KEYS[1:4])
    claimed(ledger, KEYS[0])
    both = [State.READY, State.RUNNING]
    assert [row.key for row in ledger.shards("texts", states=both)] == KEYS[:4]
    assert [row.key for row in ledger.shards("texts", states=both, after=KEYS[0], limit=2)] == KEYS[1:3]
    assert [row.key for row in ledger.shards("texts", keys=[KEYS[4], KEYS[2]])] == [KEYS[2], KEYS[4]]
    assert [row.key for row in ledger.shards("texts", keys=KEYS, states=[State.PLANNED])] == [KEYS[4]]
    assert ledger.shards("texts", states=[]) == []
    assert ledger.shards("texts", keys=[]) == []


def test_changes_come_once_and_in_order(ledger: Ledger, clock: Clock) -> None:
    ledger.attach("other", "/other", 1)
    ledger.add_shards("other", 1, [("g0001-00000", 0, 1, 1)])
    seen = ledger.changes(0, 100)
    assert [(row.pipeline, row.key) for row in seen] == [("texts", key) for key in KEYS] + [
        ("other", KEYS[0])
    ]
    cursor = seen[-1].revision
    assert ledger.changes(cursor, 100) == []
    clock.now += 5
    ledger.move("texts", KEYS[::-1], [State.PLANNED], State.PREPARED)
    ledger.move("texts", [KEYS[0]], [State.PREPARED], State.READY)
    pages = [ledger.changes(cursor, 2)]
    while pages[-1]:
        pages.append(ledger.changes(pages[-1][-1].revision, 2))
    changed = [row for page in pages for row in page]
    assert [row.key for row in changed] == [*KEYS[1:], KEYS[0]]
    assert changed[-1].state == State.READY
    assert {row.updated_at for row in changed} == {clock.now}
    assert ledger.changes(cursor, 100, pipeline="other") == []
    row = ledger.pipeline("texts")
    assert row is not None
    assert row.revision == changed[-1].revision
    ledger.heartbeat(ME)
    assert ledger.changes(row.revision, 100) == [], "a heartbeat is no change"


def test_a_picture_is_owed_for_every_commit(ledger: Ledger) -> None:
    assert ledger.unpictured(10) == []
    collect(ledger, KEYS[1::-1])
    assert [row.key for row in ledger.unpictured(10)] == [KEYS[1], KEYS[0]], "oldest first"
    assert [row.key for row in ledger.unpictured(1)] == [KEYS[1]]
    ledger.set_pictured("texts", [KEYS[1]])
    assert [row.key for row in ledger.unpictured(10)] == [KEYS[0]]
    row = ledger.shard("texts", KEYS[1])
    assert row is not None
    assert row.picture == "collected"
    ledger.recompute("texts", KEYS)
    assert ledger.unpictured(10) == []
    claim = ledger.claim("texts", KEYS[1], ME)
    assert claim is not None
    ledger.finish(claim, **DONE)
    assert [row.key for row in ledger.unpictured(10)] == [KEYS[1]]
    ledger.add_shards("texts", 1, [], superseded=[KEYS[1]])
    assert ledger.unpictured(10) == []


def test_more_shards_than_one_batch(ledger: Ledger) -> None:
    many = [(f"g0002-{ordinal:05d}", ordinal, 10, 100) for ordinal in range(2_500)]
    ledger.add_shards("texts", 2, many)
    keys = [key for key, *_ in many]
    assert ledger.move("texts", keys, [State.PLANNED], State.PREPARED) == keys
    assert ledger.move("texts", keys, [State.PREPARED], State.READY) == keys
    assert ledger.stop("texts") == keys
    assert ledger.start_again("texts") == keys
    assert ledger.counts("texts") == {State.PLANNED: 5, State.READY: 2_500}
    assert [row.key for row in ledger.shards("texts", keys=keys)] == keys
    revisions = [row.revision for row in ledger.changes(0, 10_000)]
    assert len(set(revisions)) == 2_505


def test_files(ledger: Ledger) -> None:
    ledger.add_files(
        "texts",
        1,
        [("b.jsonl", 10, "v1"), ("a/Z.jsonl", 5, "v1"), ("Ä.jsonl", 1, "v1"), ("a-b.jsonl", 2, "v1")],
    )
    ledger.add_files("other", 1, [("b.jsonl", 9, "v9")])
    paths = [file.path for file in ledger.files("texts")]
    assert paths == sorted(paths) == ["a-b.jsonl", "a/Z.jsonl", "b.jsonl", "Ä.jsonl"]
    ledger.mark_files("texts", ["b.jsonl"], "touched")
    assert [file.path for file in ledger.files("texts") if file.state == "touched"] == ["b.jsonl"]
    ledger.add_files("texts", 2, [("b.jsonl", 11, "v2")])
    file = list(ledger.files("texts"))[2]
    assert (file.size, file.generation, file.state) == (11, 2, "planned")
    many = [(f"part/{number:06d}.jsonl", number, "v") for number in range(2_100)]
    ledger.add_files("texts", 3, many)
    assert len(list(ledger.files("texts"))) == 2_104
    with pytest.raises(SourceError, match="not valid UTF-8"):
        ledger.add_files("texts", 4, [("bad\udcff.jsonl", 1, "v")])


def test_a_picture_of_the_whole(ledger: Ledger) -> None:
    collect(ledger, KEYS[:1])
    assert state(ledger) == State.COLLECTED
    totals = ledger.totals("texts")
    assert totals.shards == 5
    assert totals.planned == 500
    assert totals.bytes == 25_000
    assert (totals.embedded, totals.rejected, totals.failed, totals.tokens) == (97, 2, 1, 1_000)
