"""When a pipeline may be merged, and when it is due: what `merge_when` means.

All of it follows from the ledger: nothing is remembered here of what was asked for before. What
a merge does is in `merging.py`; who asks `merge_due` every few seconds is a sensor.
"""

import datetime
from collections.abc import Sequence

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.rows import PipelineRow, ShardRow
from batch_assets.ledger.states import State
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.timing import MergeAtFraction, MergeAtTime

MOST_CHANGES = 200_000


def refusal(
    settings: PipelineSettings, ledger: Ledger, done: Sequence[ShardRow], missing: Sequence[ShardRow]
) -> str | None:
    """Why `missing` shards stand in the way of merging `done`, as the end of a sentence; None where they do not."""
    when = settings.merge_when
    # Requests come without end: whoever asks for a merge means what there is.
    if not missing or when == "any" or (when in ("all", "complete") and settings.source.requests is not None):
        return None
    advice = "materialize embedding_outputs for them, or set merge_when: any"
    if isinstance(when, MergeAtFraction):
        records = sum(row.records for row in done)
        planned = records + sum(row.records for row in missing)
        if planned and records / planned >= when.fraction:
            return None
        share = records / planned if planned else 0.0
        return (
            f"{records:,} of {planned:,} records ({share:.2%}) are in collected shards, and merge_when asks for "
            f"{when.fraction:.2%}; {advice}"
        )
    if isinstance(when, MergeAtTime):
        now = _moment(ledger.now())
        last = last_time(when.at, now)
        if last is not None and (isinstance(when.at, datetime.datetime) or _is_of_today(last, when.at, now)):
            return None
        row = ledger.pipeline(settings.name)
        if last is not None and row is not None and _unmerged_since(ledger, row, last):
            return None  # what was due then, and is late
        written = when.at.isoformat(timespec="minutes") + ("" if when.at.tzinfo else " UTC")
        return f"before {written} a merge takes them all; {advice}"
    return advice


def merge_due(settings: PipelineSettings, ledger: Ledger) -> str | None:
    """The key of the merge that is due now, None where none is: the same key is the same merge.

    All shards collected: once, and again when something has changed. With a fraction: once when
    collected shards come to it, and once more when nothing is left to be collected. With a time: once
    for what was collected and not merged by then, and once more at the end.
    """
    row = ledger.pipeline(settings.name)
    if row is None or row.merged_revision == row.revision or ledger.totals(settings.name).stale_shards:
        return None
    counts = ledger.counts(settings.name)
    collected, shards = counts[State.COLLECTED], sum(counts.values())
    key, when = f"{settings.name}:merge:{row.epoch}", settings.merge_when
    if collected == shards > 0:
        # The revision in the key: a merge that failed is asked for again once something changed.
        return f"{key}:{row.revision}"
    if not collected or isinstance(when, str):
        return None
    at_the_end = collected + counts[State.EXHAUSTED] == shards
    if isinstance(when, MergeAtFraction):
        held = ledger.records_in(row.name, State.COLLECTED)
        if held / row.planned < when.fraction:
            return None
        if at_the_end:
            return f"{key}:{row.revision}"
        # Of the plan as it is now: new files that it barely notices are no reason to merge again.
        reached = (held - _collected_since(ledger, row)) / row.planned >= when.fraction
        return None if reached else f"{key}:{row.generation}:{row.merged_revision}:fraction"
    last = last_time(when.at, _moment(ledger.now()))
    if last is None:
        return None
    if at_the_end and isinstance(when.at, datetime.datetime):
        return f"{key}:{row.revision}"
    return f"{key}:at:{last.isoformat()}" if _unmerged_since(ledger, row, last) else None


def last_time(at: datetime.datetime | datetime.time, now: datetime.datetime) -> datetime.datetime | None:
    """When the time came last, in UTC: a moment, or a time of each day (in UTC if it names no zone); None: never."""
    if isinstance(at, datetime.datetime):
        return at.astimezone(datetime.UTC) if at <= now else None
    today = datetime.datetime.combine(
        now.astimezone(at.tzinfo or datetime.UTC), at, at.tzinfo or datetime.UTC
    )
    last = today if today <= now else today - datetime.timedelta(days=1)
    return last.astimezone(datetime.UTC)


def _is_of_today(last: datetime.datetime, at: datetime.time, now: datetime.datetime) -> bool:
    """Whether the day of `last` goes on, where `at` tells the time."""
    zone = at.tzinfo or datetime.UTC
    return last.astimezone(zone).date() == now.astimezone(zone).date()


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _changed(ledger: Ledger, row: PipelineRow) -> list[ShardRow]:
    """Collected shards that have changed since what is published was merged."""
    found = ledger.changes(row.merged_revision or 0, MOST_CHANGES, row.name)
    return [one for one in found if one.state is State.COLLECTED and not one.superseded]


def _collected_since(ledger: Ledger, row: PipelineRow) -> int:
    return sum(one.records for one in _changed(ledger, row))


def _unmerged_since(ledger: Ledger, row: PipelineRow, moment: datetime.datetime) -> bool:
    """Whether something that was collected by `moment` is not merged yet."""
    return any(one.updated_at <= moment.timestamp() for one in _changed(ledger, row))
