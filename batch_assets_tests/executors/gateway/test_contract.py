"""The executor gateway does what every shard runner promises."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets.executors.base import ShardRunner
from batch_assets.executors.gateway.servers import ModelServers
from batch_assets.settings.gateway import GatewayExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets_tests.executors.contract import RunnerContract
from batch_assets_tests.gateway.model_servers import RunningServer, model_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with model_server(tmp_path_factory.mktemp("server")) as running:
        yield running


class TestGatewayExecutor(RunnerContract):
    @pytest.fixture(autouse=True)
    def _called(self, server: RunningServer) -> None:
        self.server, self.servers = server, ModelServers()

    @pytest.fixture
    def tiny_model(self) -> Path:
        return Path("test-model")

    def configured(self, settings: PipelineSettings) -> PipelineSettings:
        called = GatewayExecutorSettings(type="gateway", base_url=self.server.url, inputs_per_call=4)
        model = settings.model.model_copy(update={"id": "test-model"})
        return settings.model_copy(update={"executor": called, "model": model})

    def make(self, settings: PipelineSettings) -> ShardRunner:
        return self.servers.executor(settings)
