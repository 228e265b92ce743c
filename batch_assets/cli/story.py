"""A shard's story in words: what `batch-assets status NAME SHARD` prints."""

import time
from typing import Any

from rich.table import Table
from rich.text import Text

from batch_assets.cli.console import emit_json, out
from batch_assets.errors import ConfigurationError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.story import Event, StoryEntry
from batch_assets.plain_text import plain_text


def show_story(ledger: Ledger, pipeline: str, shard: str, *, json: bool) -> None:
    """Print what the ledger knows of the shard. Raises ConfigurationError for one that is not planned."""
    row = ledger.shard(pipeline, shard)
    if row is None:
        raise ConfigurationError(
            f"{shard}: no such shard in pipeline {pipeline}; the first is g0001-00000, and the UI lists them all"
        )
    entries = ledger.story(pipeline, shard)
    if json:
        emit_json([_values(entry) for entry in entries])
        return
    state = "superseded" if row.superseded else row.state.value
    out.print(f"shard {shard} of {pipeline}: {state}, {row.records:,} records", soft_wrap=True)
    if entries:
        out.print(_table(entries))
    if note := _what_is_missing(entries):
        out.print(note, soft_wrap=True)


def _values(entry: StoryEntry) -> dict[str, Any]:
    return {
        "at": entry.at, "attempt": entry.attempt, "event": entry.event, "reason": entry.reason,
        "decision": entry.decision, "fence": entry.fence, "job": entry.job,
    }  # fmt: skip


def _table(entries: list[StoryEntry]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("when", no_wrap=True)
    table.add_column("try", justify="right", no_wrap=True)
    table.add_column("what happened", overflow="fold")
    for entry in entries:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at))
        table.add_row(when, str(entry.attempt or ""), _told(entry))
    return table


def _told(entry: StoryEntry) -> Text:
    told = plain_text(": ".join(part for part in (entry.event, entry.reason) if part))
    return Text(f"{told}\n→ {plain_text(entry.decision)}" if entry.decision else told)


def _what_is_missing(entries: list[StoryEntry]) -> str | None:
    """Why the story does not begin at the shard's beginning, where that is so."""
    if not entries:
        return "nothing has happened to it since this ledger knows it"
    if entries[0].number > 1:
        return f"{entries[0].number - 1:,} earlier entries are not kept"
    if entries[0].event == Event.ADOPTED:
        return "this ledger was rebuilt from the output root, and does not know what came before"
    return None
