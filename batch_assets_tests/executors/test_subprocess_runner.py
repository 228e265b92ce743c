"""A new executor is its folder, its settings and a subclass of a contract suite."""

from batch_assets.executors.base import ShardRunner
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets_tests.executors.contract import RunnerContract
from batch_assets_tests.executors.subprocess_runner import SubprocessRunner


class TestSubprocessRunner(RunnerContract):
    def make(self, settings: PipelineSettings) -> ShardRunner:
        return SubprocessRunner(settings)
