"""A shard runner in 80 lines, to show how little one takes: it runs each shard in a process of its own."""

import contextlib
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe
from typing import Any

from batch_assets.embeddings.marker import ShardMarker
from batch_assets.embeddings.schema import EMBED, Task
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.encoders.registry import load_encoder
from batch_assets.executors.base import Limits, WorkerDied
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import Storage, open_storage
from batch_assets.worker.attempt import Attempt, ShardRun, Step, follow
from batch_assets.worker.run_shard import embedding, run_shard
from batch_assets_tests.forking import start_process


@dataclass
class SubprocessRunner:
    """See `base.ShardRunner` for the verbs."""

    settings: PipelineSettings
    kind: str = "gpu"
    in_place: bool = True
    task: Task = EMBED
    limits: Limits = field(default_factory=lambda: Limits(jobs=1))

    def exclusive_device(self) -> None: ...
    def check(self) -> None: ...
    def cancel(self, job: str) -> None: ...

    def at_once(self) -> int:
        return 1

    def fingerprint(self) -> str:
        return fingerprint(self.settings)

    def run(self, attempt: Attempt, storage: Storage) -> ShardRun:
        ours, theirs = Pipe()
        process = start_process(_work, (theirs, replace(attempt, plan=None), storage.uri))
        theirs.close()
        try:
            while not isinstance(heard := _hear(ours), ShardMarker):
                if isinstance(heard, Exception):
                    raise heard
                yield heard
                ours.send("go on")
            return heard
        finally:
            ours.close()
            process.join()


def _hear(process: Connection) -> Any:
    try:
        return process.recv()
    except (EOFError, ConnectionError) as error:
        raise WorkerDied("the process that ran the shard has ended") from error


def _work(run_of: Connection, attempt: Attempt, root: str) -> None:
    """What the process does: a step whenever it is told to go on, until nobody is there to tell it."""

    def heed(step: Step) -> None:
        run_of.send(step)
        run_of.recv()

    try:
        compute = embedding(attempt.settings, lambda: load_encoder(attempt.settings, device="cpu"))
        ended: object = follow(run_shard(attempt, open_storage(root), compute), heed)
    except Exception as error:
        ended = error
    with contextlib.suppress(ConnectionError):
        run_of.send(ended)
