"""Model directories that are not whole: what is missing is said, and no random vector is ever made."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.encoders.text import TextEncoder
from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings

Tensors = dict[str, Any]


def load(folder: Path) -> TextEncoder:
    return TextEncoder.load(ModelSettings(id=str(folder), dtype="float32"), device="cpu")


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    from safetensors.torch import load_file, save_file

    weights = folder / "model.safetensors"
    save_file(change(load_file(weights)), weights, metadata={"format": "pt"})


def test_without_its_tokenizer_files_a_model_is_refused(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="holds no vocabulary"):
        load(folder)


@pytest.mark.parametrize("missing", ["encoder.layer.1.attention", ""])
def test_weights_that_are_not_all_there_are_refused(folder: Path, missing: str) -> None:
    change_weights(
        folder,
        lambda tensors: {
            f"another.{name}.kind" if missing in name else name: value for name, value in tensors.items()
        },
    )
    with pytest.raises(ModelError, match=f"lack .* of its parameters, such as {re.escape(missing)}"):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {name: value for name, value in tensors.items() if "pooler" not in name},
        lambda tensors: {f"bert.{name}": value for name, value in tensors.items()},
    ],
    ids=["without a pooler, which is not used", "saved from a larger model"],
)
def test_what_does_not_matter_to_the_vectors_may_be_missing(
    folder: Path, tiny_model: Path, change: Callable[[Tensors], Tensors]
) -> None:
    change_weights(folder, change)
    whole, changed = load(tiny_model), load(folder)
    texts = ["read a file", "sort the list"]
    expected = whole.encode(whole.prepare(texts).inputs)
    assert (changed.encode(changed.prepare(texts).inputs) == expected).all()
