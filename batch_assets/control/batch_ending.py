"""The end of batches: seen once all of their requests have ended, or their time is up, or they are cancelled.

Then their files are written (`batch_files.py`) and the batch ends. Each step can be repeated.
"""

from typing import Any

from batch_assets.control.batch_files import CANCELLED as CANCELLED_CODE
from batch_assets.control.batch_files import EXPIRED as EXPIRED_CODE
from batch_assets.control.batch_files import BatchWriter, NotEnded, withdrawn
from batch_assets.control.batch_taking import is_taken
from batch_assets.control.pipeline import Pipeline, take_root
from batch_assets.crash_points import crash_point
from batch_assets.errors import StorageError
from batch_assets.ledger.states import State
from batch_assets.requests.batches.files import FileStore, make_known
from batch_assets.requests.batches.store import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    EXPIRED,
    FINALIZING,
    IN_PROGRESS,
    VALIDATING,
    Batch,
    BatchStore,
    move,
)
from batch_assets.requests.batches.taken import LineCounts, TakenLines
from batch_assets.requests.batches.taking import end_waiting
from batch_assets.requests.database import RequestsDatabase
from batch_assets.requests.results import Results


class BatchEnding:
    """Looks after the batches of one pipeline that have not ended."""

    def __init__(self, pipeline: Pipeline, database: RequestsDatabase) -> None:
        self._pipeline = pipeline
        self._database = database
        self._store, self._files = BatchStore(database), FileStore(database)
        results = Results(database, pipeline.ledger)
        self._writer = BatchWriter(pipeline.settings, pipeline.storage, database, results)
        self._planned: dict[int, tuple[LineCounts, dict[str, int]]] = {}
        """Of each batch that is planned as a whole, how many of its requests are in which shard."""

    def end_batches(self) -> bool:
        """End those whose time has come, and note how far the others are; whether any has ended.

        Raises StorageError where files cannot be read or written now, once it has seen to the other batches.
        """
        open_ones = self._store.unfinished(self._pipeline.name)
        if not open_ones:
            return False
        with self._database.read() as connection:
            now = self._database.now(connection)
        self._planned = {
            one.number: self._planned[one.number] for one in open_ones if one.number in self._planned
        }
        ended = False
        unwritten: StorageError | None = None
        for batch in open_ones:
            try:
                ended |= self._end_if_due(batch, now)
            except StorageError as error:
                unwritten = unwritten or error
        if unwritten is not None:
            raise unwritten
        return ended

    def _end_if_due(self, batch: Batch, now: float) -> bool:
        is_late = batch.expires <= now
        if batch.status in (VALIDATING, IN_PROGRESS) and (is_late or self._are_all_ended(batch)):
            # From here on nothing more of its file is taken.
            self._store.move(batch, FINALIZING)
            crash_point("batch-finalizing")
        found = self._store.find(batch.id)
        if found is None or found.status not in (FINALIZING, CANCELLING):
            return False
        return self._end(found, is_late=is_late)

    def _are_all_ended(self, batch: Batch) -> bool:
        """Whether every request of a batch has ended; how many have is noted."""
        file = self._files.find(batch.input_file)
        if batch.status == VALIDATING or file is None:
            return False
        counts, shards = self._counts_and_shards(batch, is_taken=is_taken(batch, file))
        states = (State.COLLECTED, State.EXHAUSTED)
        rows = (
            self._pipeline.ledger.shards(self._pipeline.name, keys=sorted(shards), states=states)
            if shards
            else []
        )
        ended = sum(shards[row.key] for row in rows)
        # Until all have ended: of a shard with others' requests, any of them may be the ones that failed.
        failed = sum(min(shards[row.key], row.records - row.embedded) for row in rows)
        told = (ended - failed, failed + counts.rejected + counts.cancelled)
        if told != (batch.completed, batch.failed):
            self._store.note_progress(batch, *told)
        return batch.number in self._planned and ended + counts.cancelled == counts.requests

    def _counts_and_shards(self, batch: Batch, *, is_taken: bool) -> tuple[LineCounts, dict[str, int]]:
        if batch.number in self._planned:
            return self._planned[batch.number]
        lines = TakenLines(self._database, batch)
        counts, shards = lines.counts(), lines.by_shard()
        if is_taken and sum(shards.values()) + counts.cancelled == counts.requests:
            self._planned[batch.number] = counts, shards
        return counts, shards

    def _end(self, batch: Batch, *, is_late: bool) -> bool:
        """Write the files of a batch and end it; False where some of its requests are computed again meanwhile."""
        is_cancelled = batch.status == CANCELLING
        code = CANCELLED_CODE if is_cancelled else EXPIRED_CODE if is_late else None
        if code is not None:
            end_waiting(self._database, batch, expired=not is_cancelled)
            self._withdraw(batch, code)
        take_root(self._pipeline)
        try:
            files = self._writer.write(batch, code)
        except NotEnded:
            return False
        crash_point("batch-files-written")
        values: dict[str, Any] = {
            "total": files.completed + files.failed,
            "completed": files.completed,
            "failed": files.failed,
            "input_tokens": files.usage.input_tokens,
            "output_tokens": files.usage.output_tokens,
            "model": batch.model or self._pipeline.settings.model_name,
        }
        status = CANCELLED if is_cancelled else EXPIRED if files.cut_short else COMPLETED
        with self._database.write() as connection:
            now = self._database.now(connection)
            for name, file in (("output_file", files.output), ("error_file", files.error)):
                if file.written is not None:
                    values[name] = file.id
                    make_known(connection, file.id, file.written, batch.output_seconds)
            return move(connection, batch, status, {**values, "ended_at": now})

    def _withdraw(self, batch: Batch, code: str) -> None:
        """Have nothing computed of its requests that has not begun, as far as they share no shard with others'."""
        shards = TakenLines(self._database, batch).by_shard()
        ledger, name = self._pipeline.ledger, self._pipeline.name
        rows = ledger.shards(name, keys=sorted(shards)) if shards else []
        ledger.withdraw(name, [row.key for row in rows if row.records == shards[row.key]], withdrawn(code))
