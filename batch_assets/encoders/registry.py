"""Which encoder a pipeline's records go through, and which one its queries do."""

from typing import Literal

from batch_assets.encoders.base import Encoder
from batch_assets.encoders.saved_model.sides import Side, as_saved
from batch_assets.encoders.text_tower import has_text_tower
from batch_assets.encoders.weights import is_user_model
from batch_assets.errors import ModelError
from batch_assets.settings.pipeline import PipelineSettings


def load_encoder(settings: PipelineSettings, *, device: str = "auto", cores: int | None = None) -> Encoder:
    """The pipeline's model, for its texts or images, on `device`: auto, cpu, cuda, cuda:N. Raises ModelError.

    `cores` are the processor's cores it may use; by default all that this process has.
    """
    if is_user_model(settings.model):
        return _user_model(settings, "image" if settings.source.images else "text", cores)
    if settings.source.images:
        from batch_assets.encoders.image import ImageEncoder

        return ImageEncoder.load(
            settings.model, device=device, cores=cores, most_pixels=settings.source.max_image_pixels
        )
    return _texts(settings, device, cores, "document")


def load_query_encoder(
    settings: PipelineSettings, *, device: str = "auto", cores: int | None = None
) -> Encoder:
    """What embeds a text to be looked for among the pipeline's vectors, with the prompt and the route of queries.

    Of a model of two towers, the other one. Raises ModelError where the model embeds no texts.
    """
    if is_user_model(settings.model):
        model = as_saved(settings.model, "query")
        return _user_model(settings.model_copy(update={"model": model}), "text", cores)
    if settings.source.images and not has_text_tower(settings.model):
        raise ModelError(
            f"model {settings.model.id!r} embeds images only, so its vectors cannot be searched by a text; "
            "search by an image, or name a model of two towers, such as CLIP or SigLIP"
        )
    return _texts(settings, device, cores, "query")


def _texts(settings: PipelineSettings, device: str, cores: int | None, side: Side) -> Encoder:
    from batch_assets.encoders.text import TextEncoder

    return TextEncoder.load(settings.model, device=device, cores=cores, side=side)


def _user_model(settings: PipelineSettings, takes: Literal["text", "image"], cores: int | None) -> Encoder:
    from batch_assets.encoders.user_model import UserModelEncoder

    return UserModelEncoder.load(
        settings.model, takes, cores=cores, most_pixels=settings.source.max_image_pixels
    )
