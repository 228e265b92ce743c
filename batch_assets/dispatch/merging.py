"""Which of several queues the next messages come from. Each policy names the queues to claim from, and how many."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from batch_assets.dispatch.consumer import Consumer

Shares = list[tuple[Consumer, int]]
Policy = Callable[[Sequence[Consumer], int], Shares]
"""Of queues that may be claimed from, and of so many messages."""


def weighted(consumers: Sequence[Consumer], room: int) -> Shares:
    """Drawn by lot for each message, by the queues' weights; equal ones are llm-d's random robin."""
    drawn = Counter(
        random.choices(range(len(consumers)), [consumer.weight for consumer in consumers], k=min(room, 1_000))
    )
    return [(consumers[number], count) for number, count in drawn.items()]


def by_tier(consumers: Sequence[Consumer], room: int) -> Shares:
    """From the lowest tier that may be claimed from; a higher one only where that has nothing."""
    first = min(consumer.tier for consumer in consumers)
    return weighted([consumer for consumer in consumers if consumer.tier == first], room)


def earliest_deadline(consumers: Sequence[Consumer], room: int) -> Shares:
    """From the queue whose first deadline, as seen last, is the earliest; a few at a time."""

    def first(consumer: Consumer) -> float:
        deadline = consumer.depth.first_deadline if consumer.depth is not None else None
        return float("inf") if deadline is None else deadline

    return [(min(consumers, key=first), min(room, 8))]


POLICIES: dict[str, Policy] = {
    "random-robin": weighted,
    "weighted": weighted,
    "tier-priority": by_tier,
    "earliest-deadline": earliest_deadline,
}
