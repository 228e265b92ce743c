"""`batch-assets stop`: end a pipeline's work, wherever it runs."""

import typer

from batch_assets.cli import exit_codes, options
from batch_assets.cli.console import open_ledger, out
from batch_assets.cli.target import find_pipeline, refuse_namesake
from batch_assets.control.pipeline import known_pipeline
from batch_assets.control.stopping import stop_pipeline
from batch_assets.executors.registry import create_host


def stop(pipeline: options.Target, defs: options.Defs = None) -> None:
    """Stop a pipeline: nothing more is started, runs end after their present batch, jobs at a service are stopped."""
    ledger = open_ledger()
    settings = find_pipeline(pipeline, ledger, defs, as_it_ran=True)
    refuse_namesake(pipeline, settings, ledger)
    executor = create_host(settings.executor.type).executor(settings)
    row = ledger.pipeline(settings.name)
    if row is not None:
        # What runs, runs for the root that the ledger knows, also where the declaration names another by now.
        output = settings.output.model_copy(update={"root": row.root})
        settings = settings.model_copy(update={"output": output})
    known = known_pipeline(settings, ledger, executor)
    if known is None:
        waiting = len(ledger.stop(settings.name))
        out.print(f"{settings.name}: {waiting} waiting shards stopped; nothing of it runs", soft_wrap=True)
        return
    stopped = stop_pipeline(known)
    at_service = f"{stopped.ended} jobs ended at the service, " if not executor.in_place else ""
    out.print(
        f"{settings.name}: {stopped.waiting} waiting shards stopped, {at_service}running ones end soon; "
        f"what is done stays. `batch-assets run {pipeline}` goes on",
        soft_wrap=True,
    )
    if stopped.running:
        out.print(f"{stopped.running} jobs have not ended yet; the same command asks again", soft_wrap=True)
        raise typer.Exit(exit_codes.NOTHING_PUBLISHED)
