"""The executor in place, on whatever this machine has."""

from batch_assets.executors.base import Executor
from batch_assets.executors.gpu import GpuMachine
from batch_assets.settings import PipelineSettings
from batch_assets_tests.executors.contract import ExecutorContract

MACHINE = GpuMachine()


class TestGpuExecutor(ExecutorContract):
    def make(self, settings: PipelineSettings) -> Executor:
        return MACHINE.executor(settings)
