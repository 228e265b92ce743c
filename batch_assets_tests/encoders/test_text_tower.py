"""Texts through a model of two towers are what transformers makes of them, SigLIP's padding included."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from batch_assets.encoders.feeding import TokenFeed
from batch_assets.encoders.reference import reference_vectors
from batch_assets.encoders.registry import load_encoder, load_query_encoder
from batch_assets.encoders.text import TextEncoder
from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets_tests.builders import make_tiny_clip
from batch_assets_tests.encoders.test_text import encode, lowest_cosine

TEXTS = ["a photo of a cat", "zwei", "x", "Ünïcode 漢字", "many words, " * 60]


def by_transformers(folder: Path, kind: str) -> np.ndarray:
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = "max_length" if kind == "siglip" else True
    tokens = tokenizer(TEXTS, padding=padding, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        return model.get_text_features(**tokens).pooler_output.numpy()


@pytest.mark.parametrize(("kind", "tokens"), [("clip", [14, 6, 3]), ("siglip", [64, 64, 64])])
def test_texts_of_both_kinds(kind: str, tokens: list[int], tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path, kind=kind)
    expected = by_transformers(folder, kind)
    model = ModelSettings(id=str(folder), dtype="float32")
    encoder = TextEncoder.load(model, device="cpu")
    assert isinstance(encoder._feed, TokenFeed)
    assert encoder._model[0].model.vision_model is None  # its memory is given back
    assert encoder.prepare(TEXTS).counts[:3].tolist() == tokens
    assert lowest_cosine(encode(encoder, TEXTS, size=2), expected) > 0.99999
    assert lowest_cosine(reference_vectors(model, TEXTS), expected) > 0.99999
    auto = TextEncoder.load(ModelSettings(id=str(folder)), device="cpu")
    assert lowest_cosine(encode(auto, TEXTS), expected) > 0.9995


def test_a_pipeline_of_images_is_searched_by_its_other_tower(tmp_path: Path) -> None:
    def settings(folder: Path) -> PipelineSettings:
        values = {
            "source": {"uri": "data", "format": "webdataset"},
            "model": {"id": str(folder)},
            "output": {"root": "out"},
        }
        return parse_pipeline(values, "name", "test")

    both, images = (
        settings(make_tiny_clip(tmp_path / "clip")),
        settings(make_tiny_clip(tmp_path / "dino", kind="dinov2")),
    )
    records, queries = load_encoder(both, device="cpu"), load_query_encoder(both, device="cpu")
    assert (records.takes, queries.takes) == ("image", "text")
    assert records.dimensions == queries.dimensions == 32
    assert load_encoder(images, device="cpu").takes == "image"
    with pytest.raises(ModelError, match="cannot be searched by a text; search by an image"):
        load_query_encoder(images, device="cpu")
    with pytest.raises(ModelError, match="embeds no texts, but: image; name a model for texts"):
        TextEncoder.load(images.model, device="cpu")
