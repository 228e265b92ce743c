"""Which queue of several the next messages come from, by each policy."""

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import pytest

from batch_assets.dispatch.consumer import Consumer
from batch_assets.dispatch.merging import POLICIES
from batch_assets.dispatch.queues.base import Depth


@dataclass(frozen=True)
class Queue:
    """What policies look at."""

    name: str
    weight: float = 1.0
    tier: int = 0
    depth: Depth | None = None


def drawn(policy: str, queues: list[Queue], room: int, times: int = 1) -> Counter[str]:
    """How many messages are to come from each queue."""
    random.seed(7)
    found: Counter[str] = Counter()
    for _ in range(times):
        for queue, count in POLICIES[policy](cast("list[Consumer]", queues), room):
            found[cast(Any, queue).name] += count
    return found


def at(name: str, deadline: float | None) -> Queue:
    return Queue(name, depth=Depth(1, 0, 0, first_deadline=deadline))


def test_equal_queues_have_equal_shares() -> None:
    found = drawn("random-robin", [Queue("a"), Queue("b")], 100, times=100)
    assert found.total() == 10_000
    assert 4_700 < found["a"] < 5_300


def test_weights_are_shares() -> None:
    found = drawn("weighted", [Queue("a", weight=3), Queue("b", weight=1)], 100, times=100)
    assert found["a"] == pytest.approx(7_500, abs=300)


def test_a_lower_tier_is_emptied_before_a_higher_one() -> None:
    queues = [Queue("late", tier=2), Queue("first", tier=0), Queue("too", tier=0)]
    assert drawn("tier-priority", queues, 50, times=10).keys() == {"first", "too"}
    assert drawn("tier-priority", queues[:1], 50).keys() == {"late"}, "where the others have nothing"


def test_the_queue_with_the_earliest_deadline_comes_first() -> None:
    queues = [at("late", 200.0), at("early", 100.0), at("never", None), Queue("unseen")]
    assert drawn("earliest-deadline", queues, 3) == {"early": 3}
    assert drawn("earliest-deadline", [queues[2], queues[0]], 3) == {"late": 3}
