"""The executor `aws_batch` keeps the contract, with real workers at a rehearsed AWS."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.executors.aws_batch.account import AwsBatchAccount
from batch_assets.executors.service_jobs import ServiceJobs
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets_tests.builders import make_light_model
from batch_assets_tests.executors.contract import Embedded, ServiceContract
from batch_assets_tests.rehearsed import Rehearsal
from batch_assets_tests.workers import fork_workers


class TestAwsBatchExecutor(ServiceContract):
    @pytest.fixture(autouse=True)
    def aws(
        self, rehearse: Callable[..., Rehearsal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fork_workers(monkeypatch)
        self.rehearsal = rehearse()
        self.model = make_light_model(tmp_path / "light")

    def configured(self, settings: PipelineSettings) -> PipelineSettings:
        bucket, source = self.rehearsal.bucket, str(settings.source.uri)
        self.rehearsal.client("s3").upload_file(source, bucket, "in.jsonl")
        changes = {
            "source": {"uri": f"s3://{bucket}/in.jsonl", "id_column": "id"},
            "model": {"id": str(self.model), "trust_remote_code": True},
            "executor": {"type": "aws_batch", "job_queue": "embeddings", "image": "worker:1", "gpus": 0},
            "output": {"root": f"s3://{bucket}/out"},
        }
        return PipelineSettings.model_validate(settings.model_dump() | changes)

    def make(self, settings: PipelineSettings) -> ServiceJobs:
        return AwsBatchAccount().executor(settings)

    def embedded(self, settings: PipelineSettings, shard: Shard, attempt: int = 1) -> Embedded:
        executor = self.make(settings)
        self.ended(executor, self.submitted(executor, shard, attempt)[1])
        return Embedded.committed(settings, shard, attempt)
