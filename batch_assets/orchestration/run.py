"""What a Dagster run and a pipeline have to do with each other: opening one within the other.

Shared by the five assets; the work itself is done by `control/`.
"""

import contextlib
from collections.abc import Iterator

import dagster as dg
from dagster._core.execution.retries import RetryMode

from batch_assets.control.leases import giving_back, heartbeat
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.errors import BatchAssetsError, LedgerError
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.ledger import Ledger
from batch_assets.orchestration.metadata import PROCESS_TAG
from batch_assets.orchestration.resources import Context, host_of, ledger_of
from batch_assets.plain_text import plain_logger
from batch_assets.settings.pipeline import PipelineSettings

ADD_SOURCE_TAG = "batch_assets/add_source"
logger = plain_logger(__name__)
RETRY_TAG = "dagster/retry_number"  # Dagster's own, on the runs that its run retries start


@contextlib.contextmanager
def opened(context: Context, settings: PipelineSettings) -> Iterator[Pipeline]:
    """The pipeline of the running asset, its leases kept alive for as long as the block runs.

    Errors meant for a person become a `dg.Failure` that says the same and is not retried.
    """
    ledger, host, holder = ledger_of(context), host_of(context, settings), Holder.current()
    try:
        context.instance.add_run_tags(context.run.run_id, {PROCESS_TAG: str(holder)})
        with _answering(context, ledger, holder, settings.name):
            add_source = context.run.tags.get(ADD_SOURCE_TAG) == "true"
            yield open_pipeline(settings, ledger, host.executor(settings), add_source=add_source)
    except BatchAssetsError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


@contextlib.contextmanager
def _answering(context: Context, ledger: Ledger, holder: Holder, pipeline: str) -> Iterator[None]:
    """Have this process answer for the run, with heartbeats while the block runs."""
    run_id = context.run.run_id
    # A process of one step ends now, and the run goes on: its death would be taken for the run's.
    leave = ledger.forget_run if _is_process_of_one_step(context) else ledger.note_step_end
    ledger.note_run(run_id, holder, pipeline)
    try:
        with heartbeat(ledger, holder):
            yield
    except BaseException as error:
        with giving_back(error):
            leave(run_id)
        raise
    try:
        leave(run_id)
    except LedgerError as error:  # the step has done its work
        logger.warning("%s", error)


def _is_process_of_one_step(context: Context) -> bool:
    """Whether the executor of runs starts a process for each step, as Dagster's multiprocess one does.

    Such a process leaves retries to the one that has started it.
    """
    step = context.get_step_execution_context()
    return step.retry_mode is not RetryMode.ENABLED and len(step.execution_plan.step_keys_to_execute) == 1


def runs_of_order(run: dg.DagsterRun) -> set[str]:
    """The ids of the runs that carry out one order: this one and, where Dagster retries by itself, those before.

    A run that a person starts again is an order of its own.
    """
    earlier = (run.root_run_id, run.parent_run_id) if RETRY_TAG in run.tags else ()
    return {run.run_id, *(run_id for run_id in earlier if run_id is not None)}
