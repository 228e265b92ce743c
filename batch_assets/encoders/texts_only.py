"""A text is only ever a text to sentence-transformers, whatever it looks like.

Of a model that embeds images, sound or video as well, sentence-transformers takes a text that
looks like a URL, like the path of a file, or like a data URI for one of those: it fetches what a
record names, or opens it. Records are strangers' input, so a model loaded for texts loses the other
kinds of input. What fetches images, and from which addresses, is in `worker/fetching.py`.
"""

from typing import Any

from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings

_TEXTS = ("text", "message")
"""`message` is a text within the model's own chat template."""
_LOOKS_LIKE_AN_IMAGE = "data:image/png;base64,"


def take_texts_only(model: Any, settings: ModelSettings) -> None:
    """Leave a SentenceTransformer, which embeds texts, no other kind of input. Raises ModelError where it keeps one."""
    from sentence_transformers.base.modality import infer_batch_modality

    for module in model.modules():
        if hasattr(module, "modality_config"):
            kept = {kind: how for kind, how in module.modality_config.items() if kind in _TEXTS}
            module.modality_config = kept
            module.input_formatter.supported_modalities = list(kept)
    if infer_batch_modality([_LOOKS_LIKE_AN_IMAGE], supported_modalities=model.modalities) != "text":
        raise ModelError(
            f"model {settings.id!r} takes a text that looks like an image's URL for that image, and would fetch what "
            f"a record names; it embeds {', '.join(map(str, model.modalities))}: name a model for texts alone"
        )
