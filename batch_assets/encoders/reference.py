"""The reference that our vectors are held against: the models' own libraries in float32.

No batching, padding, decoding or precision of ours; slow, and for samples only. A user's own
model has no other implementation: its reference is a direct call for each record by itself, which
still tells whether every vector lies beside the record it is made of.
"""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt

from batch_assets.encoders.base import ImageItem
from batch_assets.encoders.image_files import known_formats
from batch_assets.encoders.image_loading import load_image_model
from batch_assets.encoders.loading import load_model
from batch_assets.encoders.saved_model.sides import as_saved, task_of
from batch_assets.encoders.user_model import UserModelEncoder
from batch_assets.encoders.weights import is_user_model
from batch_assets.settings.model import ModelSettings


def reference_vectors(model: ModelSettings, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Vectors (n, dimensions) of `texts` as `SentenceTransformer.encode` makes them on the CPU."""
    if is_user_model(model):
        return _one_by_one(UserModelEncoder.load(model, "text"), texts)
    task = task_of(model, "document")
    model = as_saved(model)
    return load_model(model, "cpu", "float32").encode(
        list(texts),
        prompt=model.prompt,
        truncate_dim=model.dimensions,
        normalize_embeddings=model.normalize,
        convert_to_numpy=True,
        show_progress_bar=False,
        **({} if task is None else {"task": task}),
    )


def reference_image_vectors(model: ModelSettings, items: Sequence[ImageItem]) -> npt.NDArray[np.float32]:
    """Vectors (n, dimensions) of image files as transformers' `image-feature-extraction` pipeline makes them.

    Which of the model's outputs is the vector is said in `image_loading.py`.
    """
    if is_user_model(model):
        return _one_by_one(UserModelEncoder.load(model, "image"), items)
    import torch
    from PIL import Image
    from transformers.image_utils import load_image

    model = as_saved(model)
    loaded = load_image_model(model, "cpu", "float32")
    rows: list[torch.Tensor] = []
    with torch.inference_mode():
        for item in items:
            image = load_image(Image.open(BytesIO(item.content), formats=known_formats()))
            vectors, _ = loaded(dict(loaded.processor(image, return_tensors="pt")))
            rows.append(vectors[:, : model.dimensions])
        stacked = torch.cat(rows)
        if model.normalize:
            stacked = torch.nn.functional.normalize(stacked, p=2, dim=1)
        return stacked.numpy()


def _one_by_one(encoder: UserModelEncoder, items: Sequence[str | ImageItem]) -> npt.NDArray[np.float32]:
    return np.concatenate([encoder.encode(encoder.prepare([item]).inputs) for item in items])
