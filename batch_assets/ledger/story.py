"""A shard's story: what happened to it, why, and what was decided, written with the move that it explains.

Append-only, and bounded: of each shard the newest entries stay. What is decided is in `retry_policy.py`; the callers
say it, `changing.py` has it written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from batch_assets.ledger.schema import shards, story

KEPT_ENTRIES = 50
_MOST_CHARACTERS = 1_000


class Event(StrEnum):
    """What happened to a shard."""

    BEGAN = "began"  # in place: it is computed
    QUEUED = "queued"  # its job waits for a slot at the service
    SUBMITTED = "submitted"  # its job has a slot, and the service is called
    REFUSED = "refused"  # the service did not take the job
    ENDED = "ended"  # the job, at the service
    FAILED = "failed"  # what a claim was for
    LOST = "machine lost"
    RELEASED = "given back"  # a claim, without a fault of the shard's
    POSTPONED = "postponed"  # what there is to collect cannot be had yet
    COLLECTED = "collected"  # committed
    ADOPTED = "adopted"  # its commit marker, or its job, was found
    STOPPED = "stopped"
    WITHDRAWN = "withdrawn"  # nobody wants its results any more
    STARTED = "started again"
    RETRIED = "retried"  # by a person, after it was given up
    RECOMPUTED = "to be computed again"
    PLANNED = "planned again"
    SUPERSEDED = "superseded"


@dataclass(frozen=True)
class Told:
    """What an entry says beside the shard's own columns.

    `taken_back`: of an attempt that does not count, so that the shard's column has forgotten it.
    `unless_repeated`: not where the newest entry says the same, as each look at what is late does.
    """

    event: Event
    reason: str = ""
    decision: str = ""
    taken_back: bool = False
    unless_repeated: bool = False


@dataclass(frozen=True)
class StoryEntry:
    """One entry; `number` counts a shard's from 1, `at` is unix seconds, `job` the fence of its newest job."""

    number: int
    at: float
    event: str
    attempt: int
    fence: int
    job: int | None
    reason: str
    decision: str


_COLUMNS = tuple(story.c[name] for name in StoryEntry.__dataclass_fields__)


def write_story(
    connection: sa.Connection, pipeline: str, revisions: tuple[int, int], told: Told, now: float
) -> None:
    """Give each shard that was changed with these revisions (first, last) its entry, in one statement.

    Its `told` is the number of the entry: whoever changed it has counted on.
    """
    attempt = shards.c.attempt + 1 if told.taken_back else shards.c.attempt
    changed = sa.select(
        shards.c.pipeline, shards.c.key, shards.c.told, sa.literal(now, sa.Double), attempt,
        shards.c.fence, shards.c.job, sa.literal(told.event.value, sa.Text),
        sa.literal(kept_text(told.reason, _MOST_CHARACTERS), sa.Text),
        sa.literal(kept_text(told.decision, _MOST_CHARACTERS), sa.Text),
    ).where(shards.c.pipeline == pipeline, shards.c.revision.between(*revisions))  # fmt: skip
    names = ("pipeline", "shard", "number", "at", "attempt", "fence", "job", "event", "reason", "decision")
    connection.execute(sa.insert(story).from_select(names, changed))


def forget_oldest(connection: sa.Connection, pipeline: str, keys: Sequence[str]) -> None:
    """Delete what these shards' stories have beyond the newest entries."""
    newest = sa.select(shards.c.told).where(shards.c.pipeline == pipeline, shards.c.key == story.c.shard)
    connection.execute(
        sa.delete(story).where(
            story.c.pipeline == pipeline,
            story.c.shard.in_(keys),
            story.c.number <= newest.correlate(story).scalar_subquery() - KEPT_ENTRIES,
        )
    )


def is_repeated(connection: sa.Connection, pipeline: str, keys: Sequence[str], told: Told) -> bool:
    """Whether the newest entry of each of these shards says this already.

    Of what cannot be had yet the first reason is told: a service's words differ from look to look, by ids and counts,
    and would drive out what came before.
    """
    newest = sa.and_(
        story.c.pipeline == shards.c.pipeline, story.c.shard == shards.c.key, story.c.number == shards.c.told
    )
    says = [story.c.event == told.event.value]
    if told.event is not Event.POSTPONED:
        says.append(story.c.reason == kept_text(told.reason, _MOST_CHARACTERS))
    same = sa.select(sa.func.count()).select_from(shards).join(story, newest)
    return connection.scalar(same.where(shards.c.pipeline == pipeline, shards.c.key.in_(keys), *says)) == len(
        keys
    )


def read_story(connection: sa.Connection, pipeline: str, key: str) -> list[StoryEntry]:
    """The shard's entries, oldest first."""
    mine = (story.c.pipeline == pipeline, story.c.shard == key)
    rows = connection.execute(sa.select(*_COLUMNS).where(*mine).order_by(story.c.number)).mappings()
    return [StoryEntry(**row) for row in rows]


def kept_text(text: str, most: int) -> str:
    """The text as a database takes it, and no longer than so many characters."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()[:most]
