"""Why a run that was executed in this process has failed: the error that its asset met, in that asset's words."""

import dagster as dg

from batch_assets.errors import (
    BatchAssetsError,
    ClusterLost,
    ConfigurationError,
    LedgerError,
    ModelError,
    SourceError,
    StorageError,
    SubmissionRefused,
)

TOLD_APART = (
    ClusterLost,
    ConfigurationError,
    LedgerError,
    ModelError,
    SourceError,
    StorageError,
    SubmissionRefused,
)
"""Dagster keeps an error's name only; those of their subclasses (an unreadable file, a ledger away) are known too."""


class RunFailed(BatchAssetsError):
    """A Dagster run that had to succeed did not."""


def raise_interruption(result: dg.ExecuteInProcessResult) -> None:
    """Dagster turns Ctrl-C into a failed run; for the command it is Ctrl-C again."""
    for event in result.all_events:
        error = event.step_failure_data.error if event.is_step_failure else None
        if error is not None and error.cls_name == "DagsterExecutionInterruptedError":
            raise KeyboardInterrupt


def cause_of(result: dg.ExecuteInProcessResult) -> Exception:
    """Why a run failed, in the words of the asset that failed, and as the error that it met."""
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data is not None and data.user_failure_data.description:
                met = data.error.cause.cls_name if data.error and data.error.cause else ""
                return _kinds().get(met, RunFailed)(data.user_failure_data.description)
            error = data.error.cause if data.error and data.error.cause else data.error
            if error is not None:
                reason = error.message.strip().splitlines()[0]
                return RunFailed(f"{reason}; the log of run {result.run_id} has the traceback")
    return RunFailed(f"run {result.run_id} failed; the Dagster UI shows why")


def _kinds() -> dict[str | None, type[BatchAssetsError]]:
    """The errors that are told apart, by their names."""
    found: list[type[BatchAssetsError]] = [*TOLD_APART]
    for kind in found:  # those that are added meanwhile, too
        found += kind.__subclasses__()
    return {kind.__name__: kind for kind in found}
