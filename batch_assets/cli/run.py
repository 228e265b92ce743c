"""`batch-assets run`: from the source to the published dataset, as far as it goes.

Run it again after anything: it goes on from what the output root holds.
"""

from typing import Annotated, Any

import typer

from batch_assets import paths
from batch_assets.cli import exit_codes, options
from batch_assets.cli.console import emit, errors, open_ledger, warn
from batch_assets.cli.progress import EmbeddingProgress
from batch_assets.cli.saving import save_pipeline
from batch_assets.cli.target import choose_pipeline
from batch_assets.components.declared import defs_folder
from batch_assets.control.preflight import check_configuration, check_model
from batch_assets.control.status import Status, read_status
from batch_assets.embeddings.accounting import Accounting
from batch_assets.embeddings.failure_reasons import most_common_reason
from batch_assets.errors import BatchAssetsError, BudgetReached, LedgerError
from batch_assets.executors.registry import ExecutorHost, create_host
from batch_assets.ledger.ledger import Ledger
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import open_storage

MANY_SHARDS = 2_000


@options.with_adhoc_flags
def run(
    pipeline: options.OptionalTarget = None,
    file: options.File = None,
    defs: options.Defs = None,
    max_failed: options.MaxFailed = 0.0,
    add_source: Annotated[
        bool, typer.Option("--add-source", help="Add another source to an output root.")
    ] = False,
    flags: dict[str, Any] = {},  # noqa: B006
) -> None:
    """Embed a pipeline's records and publish them; run again, it goes on where it ended."""
    options.check_max_failed(max_failed)
    ledger = open_ledger()
    settings = choose_pipeline(pipeline, file, defs, flags, ledger)
    host = create_host(settings.executor.type)
    executor = host.executor(settings)
    check_configuration(settings, executor, add_source=add_source)
    check_model(settings, executor, ledger)
    if "save" in flags:
        save_pipeline(settings, defs_folder(defs))
    raise typer.Exit(run_pipeline(settings, ledger, host, max_failed, add_source=add_source))


def run_pipeline(
    settings: PipelineSettings, ledger: Ledger, host: ExecutorHost, max_failed: float, *, add_source: bool
) -> int:
    """Run to the end and print what was made; returns the exit code."""
    # Dagster takes half a second to import: not before the command's own checks have passed.
    from batch_assets.orchestration.driver import Driver
    from batch_assets.orchestration.instance import open_instance
    from batch_assets.orchestration.interruption import noted
    from batch_assets.orchestration.run import ADD_SOURCE_TAG

    progress = EmbeddingProgress(settings.name)
    host.progress = progress
    tags = {ADD_SOURCE_TAG: "true"} if add_source else {}
    planned = False
    try:
        with noted(), open_instance() as instance:
            driver = Driver(settings, instance, ledger, host, tags, progress.say)
            driver.plan()
            planned = True
            before = read_status(settings, ledger)
            advise_postgresql(sum(before.shards.values()), ledger)
            with progress.shown(before.records["planned"], before.finished_records):
                driver.embed()
            found = driver.merge()
    except KeyboardInterrupt:
        errors.print(_interrupted(settings), markup=False, soft_wrap=True)
        raise
    except BatchAssetsError as error:
        if not planned or isinstance(error, LedgerError):  # a ledger that is away has no numbers to give
            raise
        errors.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        # What is published, if anything, is an earlier version: the numbers are those of the shards.
        so_far = Accounting(**read_status(settings, ledger).records)
        emit(so_far.line())
        return exit_codes.BUDGET_REACHED if isinstance(error, BudgetReached) else exit_codes.NOTHING_PUBLISHED
    after = read_status(settings, ledger)
    emit(f"published {after.version} under {settings.output.root}")
    code = _exit_code(after, max_failed, settings)
    for sentence in found:
        code = exit_codes.PUBLISHED_WITH_FAULTS
        warn(f"{after.version} is published all the same: {sentence}")
    if after.unreadable:
        code = exit_codes.PUBLISHED_WITH_FAULTS
        warn(f"{after.version} is not whole: {after.unreadable}")
    emit(after.accounting.line())
    return code


def advise_postgresql(shards: int, ledger: Ledger) -> None:
    """Say that so many shards are too many for SQLite, where they are."""
    if shards > MANY_SHARDS and ledger.url_shown.startswith("sqlite"):
        errors.print(
            f"note: {shards:,} shards; above {MANY_SHARDS:,} use PostgreSQL for the ledger and for Dagster "
            "(docs/operations.md)",
            markup=False,
            soft_wrap=True,
        )


def _exit_code(status: Status, max_failed: float, settings: PipelineSettings) -> int:
    bad = status.accounting.rejected + status.accounting.failed
    if bad / max(status.accounting.planned, 1) > max_failed:
        reason = None
        if status.version is not None:
            storage, failures = open_storage(settings.output.root), paths.merged_failures(status.version)
            reason = most_common_reason(storage, [failures])
        why = f": {reason}" if reason is not None else ""
        warn(
            f"{bad} of {status.accounting.planned} records are rejected or failed, more than "
            f"--max-failed {max_failed:g} allows{why}; see failures.parquet"
        )
        return exit_codes.PUBLISHED_WITH_FAULTS
    return exit_codes.PUBLISHED


def _interrupted(settings: PipelineSettings) -> str:
    return (
        f"stopped; what is committed stays. The same command goes on, and `batch-assets status {settings.name}` "
        "shows how far it is"
    )
