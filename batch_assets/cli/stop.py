"""`batch-assets stop`: end a pipeline's work, wherever it runs."""

from batch_assets.cli import options
from batch_assets.cli.console import open_ledger, out
from batch_assets.cli.target import find_pipeline


def stop(pipeline: options.Target, defs: options.Defs = None) -> None:
    """Stop a pipeline: nothing more is started, and runs at work end after their present batch."""
    ledger = open_ledger()
    settings = find_pipeline(pipeline, ledger, defs)
    stopped = ledger.stop(settings.name)
    out.print(
        f"{settings.name}: {len(stopped)} waiting shards stopped, running ones end soon; what is committed stays. "
        f"`batch-assets run {pipeline}` goes on",
        soft_wrap=True,
    )
