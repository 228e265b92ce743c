"""The executor `bedrock` keeps the contract, at a rehearsed AWS."""

from collections.abc import Callable

import pytest

from batch_assets.executors.bedrock.account import BedrockAccount
from batch_assets.executors.service_jobs import BatchService
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets_tests.executors.contract import ResultsContract
from batch_assets_tests.rehearsed import DIMENSIONS, ROLE, TITAN, Rehearsal


class TestBedrockExecutor(ResultsContract):
    @pytest.fixture(autouse=True)
    def aws(self, rehearse: Callable[..., Rehearsal]) -> None:
        self.bucket = rehearse().bucket

    def configured(self, settings: PipelineSettings) -> PipelineSettings:
        executor = {
            "type": "bedrock",
            "role_arn": ROLE,
            "model_id": TITAN,
            "staging": f"s3://{self.bucket}/staging/",
        }
        values = settings.model_dump() | {"executor": executor, "model": {"dimensions": DIMENSIONS}}
        return PipelineSettings.model_validate(values)

    def make(self, settings: PipelineSettings) -> BatchService:
        return BedrockAccount().executor(settings)
