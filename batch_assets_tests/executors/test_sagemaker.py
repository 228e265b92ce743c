"""The executor `sagemaker` keeps the contract, at a rehearsed AWS."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.executors.sagemaker.account import SageMakerAccount
from batch_assets.executors.service_jobs import BatchService
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets_tests.executors.contract import ResultsContract
from batch_assets_tests.rehearsed import Rehearsal


class TestSageMakerExecutor(ResultsContract):
    @pytest.fixture(autouse=True)
    def aws(self, rehearse: Callable[..., Rehearsal]) -> None:
        self.bucket = rehearse(transform={"width": 32}).bucket

    def configured(self, settings: PipelineSettings) -> PipelineSettings:
        executor = {
            "type": "sagemaker",
            "model_name": "my-model",
            "staging": f"s3://{self.bucket}/staging/",
        }
        values = settings.model_dump() | {"executor": executor, "model": {}}
        return PipelineSettings.model_validate(values)

    def make(self, settings: PipelineSettings) -> BatchService:
        return SageMakerAccount().executor(settings)

    def test_what_no_container_can_be_told_is_refused_before_anything_is_uploaded(
        self, settings: PipelineSettings
    ) -> None:
        self.make(settings).check()
        for model, field in (
            ({"revision": "main"}, "model.revision"),
            ({"dtype": "float16"}, "model.dtype"),
            ({"pooling": "mean"}, "model.pooling: 'mean' means nothing to SageMaker"),
        ):
            other = settings.model_copy(update={"model": settings.model.model_copy(update=model)})
            with pytest.raises(ConfigurationError, match=field):
                self.make(other).check()
        elsewhere = settings.executor.model_copy(update={"staging": "s3://no-such-bucket-here/x/"})
        with pytest.raises(ConfigurationError, match="no-such-bucket-here"):
            self.make(settings.model_copy(update={"executor": elsewhere})).check()
        with pytest.raises(ConfigurationError, match="no single text"):
            SageMakerAccount().embed_query(settings, "x")

    def test_staging_must_be_on_s3(self, settings: PipelineSettings, tmp_path: Path) -> None:
        nowhere = settings.executor.model_copy(update={"staging": None})
        with pytest.raises(ConfigurationError, match=r"executor\.staging"):
            self.make(settings.model_copy(update={"executor": nowhere})).check()
