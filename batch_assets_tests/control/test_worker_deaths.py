"""Workers elsewhere that die at a shard: what is committed counts, and what is not costs what it should."""

from dataclasses import dataclass
from pathlib import Path

from batch_assets.control.shard_result import Result
from batch_assets.executors.base import WorkerDied
from batch_assets.ledger.states import State
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import Storage
from batch_assets.worker.attempt import Attempt, ShardRun, Written
from batch_assets_tests.control.builders import PER_SHARD, embed_all, make_settings, open_ledger, write_input
from batch_assets_tests.fakes import FakeExecutor, FakeHost


@dataclass
class DyingHost(FakeHost):
    """Its worker dies once: behind its commit, of which it does not come to tell, or right before."""

    behind: bool = True
    died: bool = False

    def executor(self, settings: PipelineSettings) -> FakeExecutor:
        return _Dying(self, settings)


class _Dying(FakeExecutor):
    host: DyingHost

    def run(self, attempt: Attempt, storage: Storage) -> ShardRun:
        going = super().run(attempt, storage)
        while not isinstance(step := next(going), Written):
            yield step
        yield step
        if self.host.died:
            return (yield from going)
        self.host.died = True
        if self.host.behind:
            yield from going
        going.close()
        raise WorkerDied("its worker died")


def test_a_worker_that_dies_behind_its_commit_has_done_the_shard(tmp_path: Path) -> None:
    write_input(tmp_path, 1)
    settings, ledger = (
        make_settings(tmp_path, executor={"type": "gpu", "max_attempts": 1}),
        open_ledger(tmp_path),
    )
    [result] = embed_all(settings, ledger, DyingHost())
    assert result.result is Result.COLLECTED and result.marker is not None
    [row] = ledger.shards("texts")
    assert (row.state, row.embedded, row.holder) == (State.COLLECTED, PER_SHARD, None)


def test_a_worker_that_dies_before_its_commit_costs_an_attempt(tmp_path: Path) -> None:
    write_input(tmp_path, 1)
    settings, ledger = make_settings(tmp_path), open_ledger(tmp_path)
    [result] = embed_all(settings, ledger, DyingHost(behind=False))
    assert result.result is Result.COLLECTED
    assert [row.attempt for row in ledger.shards("texts")] == [2]
