"""What can be known to be wrong before anything is uploaded: settings that no container can be told."""

from batch_assets.embeddings.schema import GENERATE, Task
from batch_assets.errors import ConfigurationError
from batch_assets.settings.pipeline import PipelineSettings


def check_settings(settings: PipelineSettings, task: Task) -> None:
    """Raise ConfigurationError for what SageMaker's containers do not do, or are not asked."""
    model = settings.model
    if settings.source.images:
        raise ConfigurationError("executor.type: sagemaker takes texts; images need gpu, ray or aws_batch")
    of_the_container = ("revision", "max_tokens", "pooling")
    field = next((name for name in of_the_container if getattr(model, name) is not None), None)
    if field is not None:
        raise ConfigurationError(
            f"model.{field}: {getattr(model, field)!r} means nothing to SageMaker, it is for the container to know; "
            "leave it out, and tell it by executor.environment where it takes that"
        )
    if model.dtype not in ("auto", "float32"):
        raise ConfigurationError(
            f"model.dtype: {model.dtype!r} cannot be asked for, the container decides; use auto or float32 "
            "(output.dtype is the type of the stored vectors)"
        )
    if task == GENERATE and model.dimensions is not None:
        raise ConfigurationError(
            f"model.dimensions: {model.dimensions} cannot be had with task generate: answers have none; "
            "leave it out"
        )
