"""The vectors of a saved model, and what they are held against."""

from pathlib import Path
from typing import Any

import numpy as np

from batch_assets.encoders.text import TextEncoder
from batch_assets.settings.model import ModelSettings
from batch_assets_tests.encoders.saved_model.builders import Make

TEXTS = ["read a file", "Sort the LIST of numbers by key, and close it.", "model", "the query " * 40]


def made(make: Make, tmp_path: Path) -> Path:
    make(tmp_path / "model")
    return tmp_path / "model"


def vectors(folder: Path, side: Any = "document", **changes: Any) -> np.ndarray:
    model = ModelSettings(id=str(folder), dtype="float32", normalize=False, **changes)
    encoder = TextEncoder.load(model, device="cpu", side=side)
    return encoder.encode(encoder.prepare(TEXTS).inputs)


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert ((ours * theirs).sum(axis=1) / lengths).min() > 0.99999
