"""For how long a service has not answered what it was asked for: a command ends where that is too long.

It is asked by the turns of the control loop, and by runs that collect; what either was told counts.
"""

import threading

import dagster as dg

from batch_assets.control.loop import Turn
from batch_assets.control.pipeline import Pipeline, deferred
from batch_assets.errors import StorageError
from batch_assets.ledger.states import ENDED, State
from batch_assets.orchestration import metadata
from batch_assets.patience import Patience


class Silence:
    """One command's wait for its service. Jobs that are there go on meanwhile.

    That the service answers one call is no answer to another: where jobs are listed and none is taken,
    or none can be collected, the wait goes on.
    """

    def __init__(self, pipeline: Pipeline, patience: Patience) -> None:
        self._pipeline = pipeline
        self._patience = patience
        self._answered_at: float | None = None
        self._uncollected = False
        self._lock = threading.Lock()

    def judge(self, turn: Turn) -> None:
        """Pause after a turn that got no answer. Raises LastingStorageError where there has been none for too long."""
        with self._lock:
            answered_at = self._last_answer()
            if turn.started:
                self._patience.renew()
            elif (silent := turn.silent.get(self._pipeline.name)) is not None:
                self._answered_at = answered_at
                self._wait(silent)
            elif answered_at != self._answered_at and not self._is_owed():
                # Otherwise it was a turn between two questions.
                self._patience.renew()

    def judge_collection(self, silent: str | None) -> None:
        """The same after a run that collected; `silent` is why nothing of it was answered."""
        with self._lock:
            self._uncollected = silent is not None
            if silent is None:
                self._patience.renew()
            else:
                self._answered_at = self._last_answer()
                self._wait(silent)

    def _wait(self, silent: str) -> None:
        self._patience.wait(StorageError(f"{silent}; its jobs go on, and so does the same command"))

    def _last_answer(self) -> float | None:
        """When the service's list of jobs was last answered."""
        return self._pipeline.ledger.scope(deferred(self._pipeline).quota_group).observed_at

    def _is_owed(self) -> bool:
        """Whether what was asked in vain is still to be answered."""
        counts = self._pipeline.ledger.counts(self._pipeline.name)
        uncollected = any(counts[state] for state in (*ENDED, State.READY, State.COLLECTING))
        return counts[State.SUBMITTING] > 0 or (self._uncollected and uncollected)


def silence_of_run(result: dg.ExecuteInProcessResult) -> str | None:
    """Why a run that collected got no answer at all; None where it got one, or asked nothing."""
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.ASSET_OBSERVATION:
            told = event.asset_observation_data.asset_observation.metadata
            if metadata.UNANSWERED in told:
                return str(told[metadata.UNANSWERED].value)
    return None
