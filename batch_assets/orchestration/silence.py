"""For how long a service has said nothing, by the turns of the control loop: a command ends where that is too long."""

from batch_assets.control.loop import Turn
from batch_assets.control.pipeline import Pipeline, deferred
from batch_assets.errors import StorageError
from batch_assets.retry_policy import Patience


class Silence:
    """One command's wait for its service. Jobs that are there go on meanwhile."""

    def __init__(self, pipeline: Pipeline, patience: Patience) -> None:
        self._pipeline = pipeline
        self._patience = patience
        self._answered_at: float | None = None

    def judge(self, turn: Turn) -> None:
        """Pause after a turn that got no answer. Raises LastingStorageError where there has been none for too long."""
        answered_at = self._pipeline.ledger.scope(deferred(self._pipeline).scope).observed_at
        if (silent := turn.silent.get(self._pipeline.name)) is not None:
            if not self._patience.waiting:
                self._answered_at = answered_at
            self._patience.wait(StorageError(f"{silent}; its jobs go on, and so does the same command"))
        elif turn.started or answered_at != self._answered_at:
            # Otherwise it was a turn between two questions.
            self._patience.renew()
