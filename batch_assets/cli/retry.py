"""`batch-assets retry`: take up again what was given up or stopped."""

import datetime
from collections.abc import Sequence
from typing import Annotated

import typer

from batch_assets.cli import options
from batch_assets.cli.console import open_ledger, out
from batch_assets.cli.target import find_pipeline, refuse_namesake
from batch_assets.control.request_planning import served_elsewhere
from batch_assets.control.retrying import retry_shards
from batch_assets.errors import ConfigurationError
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.states import State
from batch_assets.requests.database import deployment_database
from batch_assets.requests.planned import shards_between
from batch_assets.settings.pipeline import PipelineSettings


def retry(
    pipeline: options.Target,
    shards: Annotated[list[str] | None, typer.Argument(metavar="SHARD", help="By default all.")] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Also embed again what is committed, and pay for it again.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="TIME", help="Of requests: windows opened at or after it, as 2026-11-30T10."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="And before it. Times without a zone are UTC.")
    ] = None,
    defs: options.Defs = None,
) -> None:
    """Make failed shards, and those with failed records, ready again; `run` then embeds them."""
    span = (_moment(since, "--from"), _moment(until, "--to"))
    ledger = open_ledger()
    settings = find_pipeline(pipeline, ledger, defs)
    refuse_namesake(pipeline, settings, ledger)
    if span != (None, None):
        shards = _shards_between(settings, shards, *span)
    ready = retry_shards(settings, ledger, shards, recompute=recompute)
    if ready:
        out.print(
            f"{len(ready)} shards are ready again; {_who_goes_on(settings, ledger, pipeline)}", soft_wrap=True
        )
    elif ledger.breaker(settings.name) is not None and ledger.counts(settings.name)[State.QUEUED]:
        out.print(
            f"jobs of {settings.name} are sent again, one submission at first; `batch-assets run {pipeline}` goes on",
            soft_wrap=True,
        )
    else:
        out.print(f"nothing to try again in {settings.name}", soft_wrap=True)


def _moment(written: str | None, flag: str) -> float | None:
    """A time as unix seconds. Raises ConfigurationError."""
    if written is None:
        return None
    try:
        found = datetime.datetime.fromisoformat(written)
    except ValueError:
        raise ConfigurationError(f"{flag}: {written!r} is no time; write one such as 2026-11-30T10") from None
    return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()


def _shards_between(
    settings: PipelineSettings, shards: Sequence[str] | None, since: float | None, until: float | None
) -> list[str]:
    """The shards that hold windows of a stretch of time. Raises ConfigurationError where there are none."""
    if settings.source.requests is None:
        raise ConfigurationError(
            f"--from and --to: pipeline {settings.name} has no windows of requests; name shards"
        )
    if shards:
        raise ConfigurationError("name shards, or a stretch of time by --from and --to, not both")
    found = shards_between(deployment_database(), settings.name, since, until)
    if not found:
        raise ConfigurationError(f"no window of {settings.name} was opened in that time and is planned")
    return found


def _who_goes_on(settings: PipelineSettings, ledger: Ledger, pipeline: str) -> str:
    if served_elsewhere(settings, ledger):
        return "`batch-assets serve` embeds them"
    return f"`batch-assets run {pipeline}` embeds them"
