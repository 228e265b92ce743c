"""`batch-assets retry`: take up again what was given up or stopped."""

from typing import Annotated

import typer

from batch_assets.cli import options
from batch_assets.cli.console import open_ledger, out
from batch_assets.cli.target import find_pipeline, refuse_namesake
from batch_assets.control.retrying import retry_shards
from batch_assets.ledger.states import State


def retry(
    pipeline: options.Target,
    shards: Annotated[list[str] | None, typer.Argument(metavar="SHARD", help="By default all.")] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Also embed again what is committed, and pay for it again.")
    ] = False,
    defs: options.Defs = None,
) -> None:
    """Make failed shards, and those with failed records, ready again; `run` then embeds them."""
    ledger = open_ledger()
    settings = find_pipeline(pipeline, ledger, defs)
    refuse_namesake(pipeline, settings, ledger)
    ready = retry_shards(settings, ledger, shards, recompute=recompute)
    if ready:
        out.print(
            f"{len(ready)} shards are ready again; `batch-assets run {pipeline}` embeds them", soft_wrap=True
        )
    elif ledger.breaker(settings.name) is not None and ledger.counts(settings.name)[State.QUEUED]:
        out.print(
            f"jobs of {settings.name} are sent again, one submission at first; `batch-assets run {pipeline}` goes on",
            soft_wrap=True,
        )
    else:
        out.print(f"nothing to try again in {settings.name}", soft_wrap=True)
