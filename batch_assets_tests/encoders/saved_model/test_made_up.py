"""Weights that a model's files do not hold are named, and none is made up; those behind a prefix are found."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers.base.modules import Dense
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel

from batch_assets.encoders.saved_model.made_up import made_up_weights
from batch_assets.errors import ModelError
from batch_assets_tests.encoders.saved_model import builders as kinds
from batch_assets_tests.encoders.saved_model.builders import BERT, Make, built, pooled, prefixed
from batch_assets_tests.encoders.saved_model.embedding import assert_same, made, vectors

PREFIXES = (
    "module.",
    "model.",
    "auto_model.",
    "encoder.",
    "transformer.",
    "_orig_mod.",
    "0.auto_model.",
    "model.bert.",
)
DAMAGED: dict[str, tuple[Make, str]] = {
    "one layer by another name": (
        kinds.renamed(lambda t: {n.replace("layer.1.", "block.1."): v for n, v in t.items()}),
        r"lack 16 of its parameters, such as encoder.layer.1.*but 16 by other names, such as encoder.block.1",
    ),
    "a prefix, and a layer missing": (
        prefixed("module.", kinds.renamed(lambda t: {n: v for n, v in t.items() if "layer.1." not in n})),
        r"lack 16 of its parameters, such as encoder.layer.1",
    ),
    "two models in one file": (
        kinds.renamed(
            lambda t: {f"{m}.{n}": v.clone() for n, v in t.items() for m in ("queries", "documents")}
        ),
        r"lack 39 of its parameters.*but 78 by other names, such as documents\.",
    ),
    "shapes that do not fit": (
        kinds.mismatched,
        r"lack 6 of its parameters, such as encoder.layer.0.intermediate",
    ),
    "dense by other names": (
        kinds.renamed(
            lambda t: {f"module.{n}": v for n, v in t.items()}, "2_Dense", built(lambda: Dense(32, 16))
        ),
        r"cannot be loaded: .*Dense: Missing key\(s\) in state_dict: .linear.bias",
    ),
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_before_every_name_is_taken_off(prefix: str, tmp_path: Path) -> None:
    make = pooled(BERT)
    make(tmp_path / "whole")
    torch.manual_seed(0)
    assert_same(vectors(made(prefixed(prefix, make), tmp_path)), vectors(tmp_path / "whole"))


@pytest.mark.parametrize(("kind", "make"), [("parts", kinds.sharded), ("subfolder", kinds.in_a_subfolder)])
def test_a_prefix_is_taken_off_wherever_the_weights_lie(kind: str, make: Make, tmp_path: Path) -> None:
    make(tmp_path / "whole")
    torch.manual_seed(0)
    assert_same(vectors(made(prefixed("module.", make), tmp_path)), vectors(tmp_path / "whole"))


def test_weights_that_a_models_own_code_read_are_not_made_up(tmp_path: Path) -> None:
    """transformers knows nothing of what was read past it; the values tell."""
    folder = made(prefixed("bert_of_mine.", pooled(BERT)), tmp_path)
    own = BertModel(BertConfig.from_pretrained(folder)).eval()
    stored = load_file(folder / "model.safetensors")
    own.load_state_dict({name.removeprefix("bert_of_mine."): value for name, value in stored.items()})
    assert made_up_weights(own, folder) == {}
    assert len(made_up_weights(BertModel(own.config), folder)) == len(stored)


@pytest.mark.parametrize("damage", DAMAGED)
def test_weights_that_are_made_up_are_refused_by_name(damage: str, tmp_path: Path) -> None:
    make, says = DAMAGED[damage]
    with pytest.raises(ModelError, match=says):
        vectors(made(make, tmp_path))


def test_buffers_that_were_moved_are_not_made_up(tmp_path: Path) -> None:
    config = ResNetConfig(
        num_channels=3, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"
    )
    ResNetModel(config).save_pretrained(tmp_path)
    model = ResNetModel.from_pretrained(tmp_path)
    # As to another device: parameters stay the objects that they are, buffers do not.
    assert made_up_weights(model.to(torch.float64), tmp_path) == {}


def test_buffers_in_the_files_of_a_model_whose_own_code_read_them_are_not_made_up(tmp_path: Path) -> None:
    config = ResNetConfig(
        num_channels=3, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"
    )
    ResNetModel(config).save_pretrained(tmp_path)
    own = ResNetModel(config)
    own.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert made_up_weights(own, tmp_path) == {}
