"""Which of several queues the next messages come from. Each policy names the queues to claim from, and how many."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from batch_assets.dispatch.feed import Feed

Shares = list[tuple[Feed, int]]
Policy = Callable[[Sequence[Feed], int], Shares]
"""Of queues that may be claimed from, and of so many messages."""


def weighted(feeds: Sequence[Feed], room: int) -> Shares:
    """Drawn by lot for each message, by the queues' weights; equal ones are llm-d's random robin."""
    drawn = Counter(
        random.choices(range(len(feeds)), [feed.settings.weight for feed in feeds], k=min(room, 1_000))
    )
    return [(feeds[number], count) for number, count in drawn.items()]


def by_tier(feeds: Sequence[Feed], room: int) -> Shares:
    """From the lowest tier that may be claimed from; a higher one only where that has nothing."""
    first = min(feed.settings.tier for feed in feeds)
    return weighted([feed for feed in feeds if feed.settings.tier == first], room)


def earliest_deadline(feeds: Sequence[Feed], room: int) -> Shares:
    """From the queue whose first deadline, as seen last, is the earliest; a few at a time."""

    def first(feed: Feed) -> float:
        deadline = feed.depth.first_deadline if feed.depth is not None else None
        return float("inf") if deadline is None else deadline

    return [(min(feeds, key=first), min(room, 8))]


POLICIES: dict[str, Policy] = {
    "random-robin": weighted,
    "weighted": weighted,
    "tier-priority": by_tier,
    "earliest-deadline": earliest_deadline,
}
