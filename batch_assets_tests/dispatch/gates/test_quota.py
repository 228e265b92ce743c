"""Quotas of tenants: who is over one goes back for as long as it takes, and nobody else does."""

import pytest

from batch_assets.dispatch.gates.quota import MOST_SECONDS, QuotaGate
from batch_assets.dispatch.messages import parse
from batch_assets_tests.dispatch.gates.given import INFINITE, Clock, message


def test_a_tenant_over_its_quota_pauses_and_others_do_not() -> None:
    gate = QuotaGate("q", 2, clock=Clock())
    under_way = [message("u"), message("u")]
    assert [gate.admit(each) for each in under_way] == [None, None]
    held = gate.admit(message("u"))
    assert held is not None
    assert 0 < held.seconds <= MOST_SECONDS
    assert "u has 2 messages under way" in held.reason
    assert gate.admit(message("v")) is None
    gate.release(under_way[0])
    assert gate.admit(message("u")) is None
    assert gate.room() == INFINITE, "it holds back some, never all"


def test_what_was_held_back_frees_nothing() -> None:
    gate = QuotaGate("q", 1, clock=Clock())
    passed, held = message("u"), message("u")
    gate.admit(passed)
    assert gate.admit(held) is not None
    gate.release(held)
    assert gate.admit(held) is not None
    gate.release(passed)
    gate.release(passed)
    assert gate.admit(held) is None
    assert gate.admit(message("u")) is not None


def test_a_message_without_a_tenant_belongs_to_none() -> None:
    gate = QuotaGate("q", 1, clock=Clock())
    assert [gate.admit(message(None)) for _ in range(5)] == [None] * 5


def test_equal_ids_of_tenants_are_told_apart_by_their_messages() -> None:
    """Ids may occur twice: the end of one frees no other one's place."""
    gate = QuotaGate("q", 2, clock=Clock())
    one, same = message("u", "x"), message("u", "x")
    gate.admit(one)
    gate.admit(same)
    gate.release(one)
    gate.release(one)
    assert gate.admit(message("u")) is None
    assert gate.admit(message("u")) is not None


def test_tenants_are_told_apart_by_any_field() -> None:
    gate = QuotaGate("q", 1, field="metadata.team", clock=Clock())
    of_team = parse(b'{"id":"a","payload":{"prompt":"a"},"metadata":{"team":7,"userid":"u"}}')
    assert gate.admit(of_team) is None
    assert gate.admit(of_team) is not None
    assert gate.admit(message("u")) is None, "it has no team"


@pytest.mark.parametrize(("limit", "window_seconds"), [(10, 60.0), (3, 1.0), (1, 10.0), (0.5, 60.0)])
def test_a_rate_is_never_passed(limit: float, window_seconds: float) -> None:
    """Beyond the first `limit` at once no more come than refill."""
    clock = Clock()
    gate = QuotaGate("q", limit, window_seconds=window_seconds, clock=clock)
    start, rate, passed = clock.now, limit / window_seconds, list[float]()
    while clock.now < start + 10 * window_seconds:
        if gate.admit(message()) is None:
            passed.append(clock.now)
        clock.now += window_seconds / 100
    for number, first in enumerate(passed):
        for count, last in enumerate(passed[number:], 1):
            assert count <= limit + (last - first) * rate + 1
    assert len(passed) >= int(10 * limit), "and no fewer than were granted"


def test_a_pause_of_a_rate_ends_when_there_is_room() -> None:
    clock = Clock()
    gate = QuotaGate("q", 6, window_seconds=60, clock=clock)
    assert [gate.admit(message()) for _ in range(6)] == [None] * 6
    waiting = [gate.admit(message()) for _ in range(3)]
    pauses = [held.seconds for held in waiting if held is not None]
    assert pauses == pytest.approx([10, 20, 30])
    assert gate.admit(message("v")) is None, "others are none of its business"
    for pause in pauses:
        clock.now = 1_000 + pause
        assert gate.admit(message()) is None


def test_nobody_is_sent_away_for_longer_than_a_minute() -> None:
    clock = Clock()
    gates = [QuotaGate("q", 1, clock=clock), QuotaGate("q", 1, window_seconds=86_400, clock=clock)]
    for gate in gates:
        gate.admit(message())
        pauses = [gate.admit(message()) for _ in range(1_000)]
        assert all(held is not None and 0 < held.seconds <= MOST_SECONDS for held in pauses)
