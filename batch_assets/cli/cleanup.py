"""`batch-assets cleanup`: remove what a pipeline's `retention` lets go, or show it."""

import time
from typing import Annotated

import typer
from rich.table import Table

from batch_assets.cli import options
from batch_assets.cli.console import emit_json, errors, open_ledger, out
from batch_assets.cli.target import find_pipeline
from batch_assets.control.cleanup import Leftovers, find_leftovers, owned_pipeline, remove_leftovers
from batch_assets.executors.registry import create_host

MEGABYTES = 10**6


def cleanup(
    pipeline: options.Target,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; remove nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    defs: options.Defs = None,
) -> None:
    """Remove request files, raw results, spools, superseded shards and old versions older than retention says."""
    ledger = open_ledger()
    settings = find_pipeline(pipeline, ledger, defs)
    executor = create_host(settings.executor.type).executor(settings)
    owned = owned_pipeline(settings, ledger, executor)
    now = ledger.now()
    found = find_leftovers(owned, now) if dry_run else remove_leftovers(owned, now, _say)
    if json:
        emit_json(_values(settings.name, found, removed=not dry_run))
        return
    out.print(_table(found))
    fate = "would be removed" if dry_run else "removed"
    out.print(f"{settings.name}: {found.files:,} files, {found.bytes / MEGABYTES:,.1f} MB {fate}")


def _say(text: str) -> None:
    errors.print(text, markup=False, soft_wrap=True)


def _values(name: str, found: Leftovers, *, removed: bool) -> dict[str, object]:
    kinds = {
        kind.value: {"files": one.files, "bytes": one.bytes, "oldest": one.oldest, "examples": one.examples}
        for kind, one in found.kinds.items()
    }
    return {"pipeline": name, "removed": removed, "files": found.files, "bytes": found.bytes, "kinds": kinds}


def _table(found: Leftovers) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "files", "MB", "oldest", "for example"):
        table.add_column(name, justify="right" if name in ("files", "MB") else "left", overflow="fold")
    for kind, one in found.kinds.items():
        oldest = "" if one.oldest is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one.oldest))
        megabytes = f"{one.bytes / MEGABYTES:,.1f}"
        table.add_row(kind.value, f"{one.files:,}", megabytes, oldest, next(iter(one.examples), ""))
    return table
