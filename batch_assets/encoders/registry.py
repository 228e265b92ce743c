"""Which encoder a pipeline's records go through, and which one its queries do."""

from batch_assets.encoders.base import Encoder
from batch_assets.settings import PipelineSettings


def load_encoder(settings: PipelineSettings, *, device: str = "auto", cores: int | None = None) -> Encoder:
    """The pipeline's model, for its texts or images, on `device`: auto, cpu, cuda, cuda:N. Raises ModelError.

    `cores` are the processor's cores it may use; by default all that this process has.
    """
    from batch_assets.encoders.text import TextEncoder

    return TextEncoder.load(settings.model, device=device, cores=cores)


def load_query_encoder(
    settings: PipelineSettings, *, device: str = "auto", cores: int | None = None
) -> Encoder:
    """What embeds a text to be looked for among the pipeline's vectors: of a model of two towers, the other one.

    Raises ModelError where the model embeds no texts.
    """
    return load_encoder(settings, device=device, cores=cores)
