"""After an outage, in which nobody could renew a lease: what others hold is not taken at once, nor kept for ever."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from batch_assets.ledger import patience
from batch_assets.ledger.database import LedgerAway
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.outage import Outage, steady
from batch_assets.retry_policy import GRACE_SECONDS, HEARTBEAT_SECONDS
from batch_assets_tests.ledger.conftest import Passing
from batch_assets_tests.ledger.helpers import ELSEWHERE, KEYS, ME, claimed, holds, planned
from batch_assets_tests.ledger.postgres import Server

KEY, OTHER = KEYS[:2]
GONE = replace(ELSEWHERE, pid=18)
"""A process that is killed while the database is away: it renews nothing afterwards."""
LONG = 600.0
Opened = Callable[..., Ledger]


def test_no_live_claim_is_taken_after_an_outage_of_the_server(
    mortal_postgresql_server: Server,
    opened: Opened,
    passing: Passing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = mortal_postgresql_server
    ledger = planned(opened(server.url, clock=passing.clock))
    claim, lost = claimed(ledger, KEY, ELSEWHERE), claimed(ledger, OTHER, GONE)
    assert ledger.lease("merge:texts", ELSEWHERE) == 1
    passing.pass_by(HEARTBEAT_SECONDS)  # since the last renewal
    server.end()
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(LedgerAway):
        ledger.counts("texts")
    passing.pass_by(LONG)
    # What was opened before it, and what a sensor's next tick opens: first back, both take nothing.
    server.start()
    for back in (ledger, opened(server.url, clock=passing.clock)):
        assert back.claim("texts", KEY, ME) is None
        assert back.lease("merge:texts", ME) is None
        assert back.lease_holder("merge:texts") == ELSEWHERE
        assert back.is_held("texts", KEY)
    passing.pass_by(HEARTBEAT_SECONDS)
    assert ledger.heartbeat(ELSEWHERE) == 2
    passing.pass_by(GRACE_SECONDS)
    assert ledger.claim("texts", KEY, ME) is None, "renewed meanwhile"
    assert holds(ledger, claim)
    assert ledger.claim("texts", OTHER, ME) is not None, "nobody has renewed it"
    assert not holds(ledger, lost)


def test_until_the_database_is_back_long_enough_the_time_of_its_last_answer_counts(passing: Passing) -> None:
    outage, begun = Outage(), passing.clock.now
    outage.note_answer(steady())
    assert outage.judged_at(passing.clock.now) == begun
    passing.pass_by(HEARTBEAT_SECONDS)
    assert outage.judged_at(passing.clock.now) == passing.clock.now, "nobody has asked in vain"
    outage.note_away()
    passing.pass_by(LONG)
    outage.note_answer(steady())
    # Away again before everybody has renewed what is theirs: still the same outage.
    passing.pass_by(GRACE_SECONDS - 1)
    outage.note_answer(steady())
    outage.note_away()
    passing.pass_by(LONG)
    outage.note_answer(steady())
    passing.pass_by(GRACE_SECONDS - 1)
    assert outage.judged_at(passing.clock.now) == begun
    passing.pass_by(1)
    assert outage.judged_at(passing.clock.now) == passing.clock.now
    # Another one, long after.
    outage.note_answer(steady())
    begun = passing.clock.now
    passing.pass_by(LONG)
    outage.note_away()
    assert outage.judged_at(passing.clock.now) == begun


def test_who_has_waited_from_its_first_word_on_judges_nobody_by_time(passing: Passing) -> None:
    outage = Outage()
    outage.note_away()
    outage.note_answer(steady())
    assert outage.judged_at(passing.clock.now) < 0
    passing.pass_by(GRACE_SECONDS)
    assert outage.judged_at(passing.clock.now) == passing.clock.now


def test_a_writer_that_stood_still_inside_of_its_transaction_was_an_outage_too(passing: Passing) -> None:
    outage, begun = Outage(), passing.clock.now
    outage.note_answer(steady())
    asked = steady()
    passing.pass_by(LONG)
    outage.note_answer(steady())  # to who only reads, and waits for no writer
    assert not outage.note_answer(asked), "it was never away"
    assert outage.judged_at(passing.clock.now) == begun
    passing.pass_by(GRACE_SECONDS)
    assert outage.judged_at(passing.clock.now) == passing.clock.now


def test_where_each_writer_is_slow_leases_expire_all_the_same(passing: Passing) -> None:
    outage = Outage()
    outage.note_answer(steady())
    for _ in range(100):
        asked = steady()
        passing.pass_by(HEARTBEAT_SECONDS + 1)
        outage.note_answer(asked)
    assert passing.clock.now - outage.judged_at(passing.clock.now) < 2 * GRACE_SECONDS


def test_an_outage_is_told_once_whichever_threads_meet_it(passing: Passing) -> None:
    outage = Outage()
    outage.note_answer(steady())
    passing.pass_by(1)
    late = steady()
    outage.note_away()  # in the middle of a transaction, which is repeated: nothing is told of it
    assert outage.begin_telling(steady()) and not outage.begin_telling(steady())
    passing.pass_by(1)
    assert outage.note_answer(steady()) and not outage.note_answer(steady())
    assert not outage.begin_telling(late), "something later was answered"
    passing.pass_by(1)
    assert outage.begin_telling(steady())
