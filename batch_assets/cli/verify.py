"""`batch-assets verify`: prove from the files alone that every record is accounted for."""

import typer

from batch_assets.cli import exit_codes, options
from batch_assets.cli.console import emit, errors, look_at_ledger
from batch_assets.cli.target import find_pipeline
from batch_assets.merge.verification import verify as verify_root
from batch_assets.storage import open_storage


def verify(pipeline: options.Target, defs: options.Defs = None) -> None:
    """Recount a pipeline's records in its files and check every digest."""
    ledger = look_at_ledger()
    settings = find_pipeline(pipeline, ledger, defs, executor_acts=False, as_it_ran=True)
    report = verify_root(open_storage(settings.output.root))
    for problem in report.problems:
        errors.print(f"not true: {problem}", style="red", markup=False, soft_wrap=True)
    for note in report.notes:
        errors.print(f"note: {note}", markup=False, soft_wrap=True)
    emit(report.accounting.line())
    raise typer.Exit(exit_codes.NOTHING_PUBLISHED if report.problems else exit_codes.PUBLISHED)
