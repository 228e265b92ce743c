"""One pipeline as SageMaker is asked for it, by its settings alone: its fingerprint, and what answers look like.

Nothing is asked of the service; that is in `executor.py`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.schema import EMBED, GENERATE, Task
from batch_assets.executors.aws.staging import Staged
from batch_assets.executors.sagemaker.answers import AnswerFormat
from batch_assets.executors.sagemaker.expectations import first_width
from batch_assets.executors.sagemaker.requests import CSV
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.sagemaker import SageMakerExecutorSettings

VERSION = 1
"""Raised when lines are rendered otherwise, so that the same text gives another vector."""

NOT_KNOWN = 1
"""Dimensions of a shard without any vector, where no other has told them: a file of no rows has a schema, too."""


@dataclass
class SageMakerPipeline(Staged):
    """What input objects are made of, and answers read by."""

    settings: PipelineSettings
    service_name = "SageMaker"

    @cached_property
    def options(self) -> SageMakerExecutorSettings:
        assert isinstance(self.settings.executor, SageMakerExecutorSettings)
        return self.settings.executor

    @property
    def task(self) -> Task:
        return self.settings.task or EMBED

    def fingerprint_parts(self) -> dict[str, Any]:
        source, model, options = self.settings.source, self.settings.model, self.options
        return {
            "version": VERSION,
            "task": self.task,
            "model": options.model_name,
            "environment": options.environment,
            "content_type": options.content_type,
            "fields": [options.input_field, options.output_field],
            "prompt": model.prompt,
            "normalize": model.normalize,
            "dimensions": model.dimensions,
            "text": source.text_template or [*source.text_columns],
            "stored": self.settings.output.dtype,
        }

    def answer_format(self, rows: JobRows) -> AnswerFormat:
        """What answers are to look like, as far as settings and earlier shards tell."""
        model, options = self.settings.model, self.options
        return AnswerFormat(
            task=self.task,
            csv=options.content_type == CSV,
            output_field=options.output_field,
            dimensions=model.dimensions,
            normalize=model.normalize,
            width=self._width(rows) or None,
        )

    def dimensions(self, rows: JobRows) -> int:
        """Those of the shard's vectors; 0 where there are answers."""
        return (self._width(rows) or NOT_KNOWN) if self.task == EMBED else 0

    def _width(self, rows: JobRows) -> int:
        """Dimensions of the shard's vectors; where it has none, of the pipeline's. 0: not known, or answers."""
        if self.task == GENERATE:
            return 0
        known = rows.dimensions or self.settings.model.dimensions
        return known or first_width(self.settings.output.root, self.fingerprint())
