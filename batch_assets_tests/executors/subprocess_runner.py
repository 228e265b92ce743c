"""A shard runner in 80 lines, to show how little one takes: it runs each shard in a process of its own."""

import contextlib
import subprocess
import sys
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
        told = [sys.executable, "-m", "batch_assets_tests.executors.subprocess_runner", str(theirs.fileno())]
        with subprocess.Popen(told, pass_fds=[theirs.fileno()]), contextlib.closing(ours):
            theirs.close()
            ours.send((replace(attempt, plan=None), storage.uri))
            while not isinstance(heard := _hear(ours), ShardMarker):
                if isinstance(heard, Exception):
                    raise heard
                yield heard
                ours.send("go on")
            return heard


def _hear(process: Connection) -> Any:
    try:
        return process.recv()
    except (EOFError, ConnectionError) as error:
        raise WorkerDied("the process that ran the shard has ended") from error


def main() -> None:
    """What the process does: a step whenever it is told to go on, until nobody is there to tell it."""
    run_of = Connection(int(sys.argv[1]))
    attempt, root = run_of.recv()

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


if __name__ == "__main__":
    main()
