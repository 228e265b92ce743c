"""A shard runner in 60 lines, to show how little one takes: it runs each shard in a process of its own."""

import subprocess
import sys
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe

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
        with subprocess.Popen(told, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            try:
                ours.send((replace(attempt, plan=None), storage.uri))
                while not isinstance(heard := ours.recv(), ShardMarker):
                    if isinstance(heard, Exception):
                        raise heard
                    yield heard
                    ours.send("go on")
                return heard
            except (EOFError, OSError) as error:
                raise WorkerDied("the process that ran the shard has ended") from error
            finally:
                process.kill()


def main() -> None:
    """What the process does: a step whenever it is told to go on."""
    run_of = Connection(int(sys.argv[1]))
    attempt, root = run_of.recv()

    def heed(step: Step) -> None:
        run_of.send(step)
        run_of.recv()

    try:
        compute = embedding(attempt.settings, lambda: load_encoder(attempt.settings, device="cpu"))
        run_of.send(follow(run_shard(attempt, open_storage(root), compute), heed))
    except EOFError:
        pass  # nobody iterates any more
    except Exception as error:
        run_of.send(error)


if __name__ == "__main__":
    main()
