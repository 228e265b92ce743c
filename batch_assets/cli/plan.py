"""`batch-assets plan`: the shards of a pipeline, and what embedding them will take."""

import tempfile
from dataclasses import asdict
from typing import Annotated, Any

import pyarrow as pa
import typer
from rich.table import Table

from batch_assets.cli import options
from batch_assets.cli.console import emit_json, errors, open_ledger, out
from batch_assets.cli.saving import save_pipeline
from batch_assets.cli.target import choose_pipeline
from batch_assets.components.declared import defs_folder
from batch_assets.control.estimate import Estimate, called_singly, estimate, usd_per_record
from batch_assets.control.preflight import check_configuration
from batch_assets.control.preview import preview_plan
from batch_assets.executors.base import PaidRunner
from batch_assets.executors.registry import create_host
from batch_assets.plain_text import plain_text
from batch_assets.storage import open_storage


@options.with_adhoc_flags
def plan(
    pipeline: options.OptionalTarget = None,
    file: options.File = None,
    defs: options.Defs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Touched and removed files' shards leave the merge.")
    ] = False,
    max_failed: options.MaxFailed = 0.0,
    add_source: Annotated[
        bool, typer.Option("--add-source", help="Add another source to an output root.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    flags: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Cut a pipeline's source into shards and estimate what embedding them takes. Takes the flags of `run`."""
    # Arrow's own allocator gives little back, and planning is to stay small beside a source of any size.
    pa.set_memory_pool(pa.system_memory_pool())
    options.check_max_failed(max_failed)
    ledger = open_ledger()
    settings = choose_pipeline(pipeline, file, defs, flags, ledger)
    host = create_host(settings.executor.type)
    executor = host.executor(settings)
    check_configuration(settings, executor, add_source=add_source)
    said: list[str] = []
    if not dry_run:
        if "save" in flags:
            save_pipeline(settings, defs_folder(defs))
        from batch_assets.orchestration.driver import Driver
        from batch_assets.orchestration.instance import open_instance
        from batch_assets.orchestration.metadata import REPLACE_TAG
        from batch_assets.orchestration.run import ADD_SOURCE_TAG

        tags = {ADD_SOURCE_TAG: "true"} if add_source else {}
        with open_instance() as instance:
            tags |= {REPLACE_TAG: "true"} if replace else {}
            Driver(settings, instance, ledger, host, tags, said.append).plan()
    with tempfile.TemporaryDirectory() as spool:
        preview = preview_plan(settings, executor, ledger, open_storage(spool), replace=replace)
    single = called_singly(executor, preview.shards)
    if single:
        least = executor.limits.min_records
        preview.notes.append(
            f"{single:,} records are called one by one, at the price on demand: they lie in shards of fewer than "
            f"{least:,} records, and a job of {settings.executor.type} takes no fewer; cost has them at that price"
        )
    # Of what is planned by now, the preview knows only what it sees again.
    for note in dict.fromkeys(map(plain_text, [*said, *(f"note: {note}" for note in preview.notes)])):
        errors.print(note, markup=False, soft_wrap=True)
    rate = ledger.recent_rate(settings.name, 20)
    found = estimate(
        settings, executor, preview.shards, preview.sample, rate, usd_per_record(ledger, settings.name)
    )
    if json:
        emit_json(asdict(found))
    else:
        by_time = settings.executor.paid_by_time
        table = _table(found, settings.name, in_place=executor.in_place, by_time=by_time)
        if isinstance(executor, PaidRunner):
            table.add_row("calls", f"{executor.calls(found.records):,}")
            table.add_row("cost", _dollars(found.usd))
        table.add_row("written", "nothing (--dry-run)" if dry_run else "the plan")
        out.print(table)


def _table(found: Estimate, name: str, *, in_place: bool, by_time: bool) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("pipeline", name)
    table.add_row("shards", f"{found.shards:,}")
    table.add_row("records", f"{found.records:,}")
    table.add_row("tokens", f"about {found.tokens:,}")
    where = " on this machine's processor" if in_place else ", as the last shards went"
    table.add_row("time", "unknown" if found.seconds is None else f"about {found.seconds:,.0f} s{where}")
    if by_time:
        unknown = "unknown before the first shards are collected, with a price in executor.usd_per_hour"
        table.add_row("cost", unknown if found.usd is None else _dollars(found.usd))
    elif not in_place:
        table.add_row("cost", _dollars(found.usd))
        table.add_row("on demand", f"{_dollars(found.usd_on_demand)} for the same, record by record")
    return table


def _dollars(usd: float | None) -> str:
    if usd is None:
        return "unknown: no price of the model; name it in executor.prices"
    return f"about {usd:,.2f} USD" if usd >= 0.01 or usd == 0 else f"about {usd:.6f} USD"
