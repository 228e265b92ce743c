"""Quotas in simulated time: of ten tenants with thousands of messages none starves, and none is asked for ever."""

import heapq
from collections import Counter, defaultdict

import pytest

from batch_assets.dispatch.gates.quota import MOST_SECONDS, QuotaGate
from batch_assets.dispatch.messages import Message
from batch_assets_tests.dispatch.gates.given import Clock, message


class Simulation:
    """A worker with `slots` calls in flight, of `seconds` each, behind one quota, in simulated time."""

    def __init__(self, gate: QuotaGate, clock: Clock, *, slots: int, seconds: float) -> None:
        self._gate, self._clock, self._slots, self._seconds = gate, clock, slots, seconds
        self.held: Counter[str] = Counter()
        self.most_under_way: Counter[str] = Counter()
        self.started: defaultdict[str, list[float]] = defaultdict(list)
        self.ended: dict[str, float] = {}

    def run(self, counts: dict[str, int]) -> None:
        """The tenants' messages arrive at once, one tenant's behind the other's."""
        names = [tenant for tenant, count in counts.items() for _ in range(count)]
        waiting = [(self._clock.now, number, message(tenant)) for number, tenant in enumerate(names)]
        in_flight: list[tuple[float, int, Message]] = []
        under_way: Counter[str] = Counter()
        while waiting or in_flight:
            while waiting and waiting[0][0] <= self._clock.now and len(in_flight) < self._slots:
                _, number, each = heapq.heappop(waiting)
                tenant, held = each.metadata["userid"], self._gate.admit(each)
                if held is not None:
                    self.held[tenant] += 1
                    heapq.heappush(waiting, (self._clock.now + held.seconds, number, each))
                    continue
                under_way[tenant] += 1
                self.most_under_way[tenant] = max(self.most_under_way[tenant], under_way[tenant])
                self.started[tenant].append(self._clock.now)
                heapq.heappush(in_flight, (self._clock.now + self._seconds, number, each))
            times = [in_flight[0][0]] if in_flight else []
            if waiting and len(in_flight) < self._slots:
                times.append(waiting[0][0])
            self._clock.now = max(self._clock.now, min(times))
            while in_flight and in_flight[0][0] <= self._clock.now:
                _, _, each = heapq.heappop(in_flight)
                under_way[each.metadata["userid"]] -= 1
                self._gate.release(each)
                self.ended[each.metadata["userid"]] = self._clock.now


COUNTS = {"large": 4_000, "larger": 3_000} | {f"small {number}": 100 for number in range(8)}


@pytest.mark.parametrize("seconds", [0.5, 2.0, 8.0])
def test_of_ten_tenants_none_starves_and_none_is_asked_for_ever(seconds: float) -> None:
    clock = Clock()
    simulation = Simulation(QuotaGate("q", 4, clock=clock), clock, slots=32, seconds=seconds)
    simulation.run(COUNTS)
    assert {tenant: len(starts) for tenant, starts in simulation.started.items()} == COUNTS
    assert max(simulation.most_under_way.values()) <= 4
    for tenant, count in COUNTS.items():
        took, least = simulation.ended[tenant] - 1_000, count * seconds / 4
        # The large ones' messages stand before the small ones': they must not hold them up.
        assert took <= 2 * least + 2 * MOST_SECONDS, tenant
        assert simulation.held[tenant] <= count * (3 + took / MOST_SECONDS), tenant


def test_of_ten_tenants_with_a_rate_none_starves_and_none_is_asked_for_ever() -> None:
    clock = Clock()
    simulation = Simulation(QuotaGate("q", 120, window_seconds=60, clock=clock), clock, slots=32, seconds=0.1)
    simulation.run(COUNTS)
    for tenant, count in COUNTS.items():
        starts = simulation.started[tenant]
        assert len(starts) == count
        for number, start in enumerate(starts):
            assert number + 1 <= 120 + 2 * (start - starts[0]) + 1e-3, (
                "never more than the limit and what refilled"
            )
        took, least = starts[-1] - 1_000, max(0, count - 120) / 2
        assert took <= 2 * least + 2 * MOST_SECONDS, tenant
        assert simulation.held[tenant] <= count * (3 + took / MOST_SECONDS), tenant
