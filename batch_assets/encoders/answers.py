"""What a user's own model answers, in whatever form, as vectors; `user_model.py` asks it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings


def answered_vectors(answer: Any, records: int, settings: ModelSettings) -> npt.NDArray[np.float32]:
    """What a model's `encode` gave for `records` records as an array (records, width). Raises ModelError."""
    try:
        if hasattr(answer, "shape"):
            vectors = _numbers(answer)
        else:
            rows = [_numbers(each) for each in answer]
            vectors = np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"model {settings.id!r}: encode gave {type(answer).__name__}, which are no vectors of one length: "
            f"{error}; return a list of lists of numbers, or an array"
        ) from error
    if vectors.ndim != 2 or len(vectors) != records or not vectors.shape[1]:
        raise ModelError(
            f"model {settings.id!r}: encode gave an array of shape {vectors.shape} for {records} records; "
            f"it must be ({records}, dimensions), a vector for each"
        )
    return vectors


def _numbers(values: Any) -> npt.NDArray[np.float32]:
    """A list, array or tensor (of any device) as float32."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)
