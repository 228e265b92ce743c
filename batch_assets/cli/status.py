"""`batch-assets status`: how far a pipeline is, in words or as JSON; or the story of one shard (`story.py`)."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from batch_assets.cli import options
from batch_assets.cli.console import emit_json, look_at_ledger, out
from batch_assets.cli.story import show_story
from batch_assets.cli.target import find_pipeline
from batch_assets.control.status import Status, read_status

JSON_FIELDS = (
    "pipeline", "generation", "shards", "records", "slots", "cost_usd", "expected_usd", "eta_seconds", "version",
)  # fmt: skip


def status(
    pipeline: options.Target,
    shard: Annotated[
        str | None, typer.Argument(metavar="SHARD", help="Tell this shard's story instead.")
    ] = None,
    defs: options.Defs = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout; of a shard a list.")
    ] = False,
) -> None:
    """Show how far a pipeline is, or what happened to one of its shards and why."""
    ledger = look_at_ledger()
    settings = find_pipeline(pipeline, ledger, defs, executor_acts=False, as_it_ran=True)
    if shard is not None:
        show_story(ledger, settings.name, shard, json=json)
        return
    found = read_status(settings, ledger)
    if json:
        values = asdict(found)
        told = {name: values[name] for name in JSON_FIELDS}
        emit_json(told if found.requests is None else told | {"requests": asdict(found.requests)})
    else:
        out.print(_table(found))


def _table(found: Status) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")  # a long name is broken, not cut off
    shards = ", ".join(f"{count:,} {state}" for state, count in found.shards.items()) or "none planned"
    table.add_row("pipeline", found.pipeline)
    table.add_row("generation", str(found.generation))
    table.add_row("shards", shards)
    table.add_row("records", ", ".join(f"{count:,} {name}" for name, count in found.records.items()))
    if found.requests is not None:
        table.add_row("requests", found.requests.line().removeprefix("requests: "))
    if found.stale_shards:
        table.add_row("stale", f"{found.stale_shards:,} shards of another fingerprint, to be embedded again")
    table.add_row("running", f"{found.slots['used']} of {found.slots['limit']} slots")
    if found.cost_usd or found.expected_usd:
        table.add_row("cost", f"{found.cost_usd:,.4f} USD of about {found.expected_usd:,.4f} expected")
    if found.blocked:
        table.add_row("waiting", found.blocked)
    if found.records_per_second:
        rate = found.records_per_second
        table.add_row("speed", f"{rate:,.0f} records/s over the last shards, {rate * 3600:,.0f} an hour")
    if found.unreadable:
        table.add_row("left out", found.unreadable)
    left = "unknown" if found.eta_seconds is None else f"{found.eta_seconds:,.0f} s"
    table.add_row("time left", left)
    table.add_row("published", found.version or "nothing yet")
    if found.parity:
        table.add_row("", found.parity)
    return table
