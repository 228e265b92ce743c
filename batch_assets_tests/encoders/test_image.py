"""Vectors of images are what transformers' own processor and model make of the same files."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers.image_utils import load_image

from batch_assets.encoders import guards
from batch_assets.encoders.base import ImageItem
from batch_assets.encoders.image import ImageEncoder
from batch_assets.encoders.preprocessing import ProcessorPixels, StepPixels
from batch_assets.encoders.reference import reference_image_vectors
from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings
from batch_assets_tests.builders import make_tiny_clip
from batch_assets_tests.encoders.pictures import NAMES, every_kind, photograph, written
from batch_assets_tests.encoders.test_text import lowest_cosine

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SMALL, "image_size": 64, "patch_size": 16, "initializer_range": 0.2}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return every_kind()


@pytest.fixture(scope="module")
def items() -> list[ImageItem]:
    return [ImageItem(written(photograph(name, 400), "JPEG", quality=90)) for name in NAMES]


def load(folder: Path, **changes: Any) -> ImageEncoder:
    return ImageEncoder.load(ModelSettings(id=str(folder), **{"dtype": "float32", **changes}), device="cpu")


def encode(encoder: ImageEncoder, contents: list[bytes], size: int = 7) -> np.ndarray:
    prepared = encoder.prepare([ImageItem(content) for content in contents])
    assert not prepared.faults
    assert set(prepared.counts) == {encoder.tokens}
    batches = range(0, len(contents), size)
    return np.concatenate([encoder.encode(prepared.inputs[first : first + size]) for first in batches])


def by_transformers(folder: Path, contents: list[bytes]) -> np.ndarray:
    """Vectors by the model's own processor and model alone, an image at a time."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    rows = []
    for content in contents:
        pixels = processor(load_image(Image.open(BytesIO(content))), return_tensors="pt")
        with torch.inference_mode():
            compute = getattr(model, "get_image_features", model)
            rows.append(compute(**pixels).pooler_output.flatten(1).numpy()[0])
    vectors = np.stack(rows)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2"])
def test_every_kind_of_file_gets_the_vector_that_transformers_makes(
    kind: str, tmp_path: Path, files: dict[str, bytes]
) -> None:
    folder = make_tiny_clip(tmp_path, kind=kind)
    contents = list(files.values())
    expected = by_transformers(folder, contents)
    exact = load(folder)
    assert isinstance(exact._pixels, StepPixels)
    vectors = encode(exact, contents)
    apart = {name: float(cosine) for name, cosine in zip(files, (vectors * expected).sum(1), strict=True)}
    assert min(apart.values()) > 0.9999, apart
    # Random models find all images alike: what tells them apart must be the same, too.
    common = expected.mean(0)
    assert lowest_cosine(vectors - common, expected - common) > 0.999
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # By default in the machine's own precision, and never worse than promised.
    assert lowest_cosine(encode(load(folder, dtype="auto"), contents), expected) > 0.9995


def test_the_pipeline_of_transformers_gives_the_same(tmp_path: Path, items: list[ImageItem]) -> None:
    folder = make_tiny_clip(tmp_path, kind="dinov2")
    extract = transformers.pipeline("image-feature-extraction", model=str(folder), backend="pil")
    images = [Image.open(BytesIO(item.content)) for item in items]
    expected = np.array(extract(images, pool=True))[:, 0]
    assert (
        lowest_cosine(encode(load(folder, normalize=False), [item.content for item in items]), expected)
        > 0.99999
    )


def _save(folder: Path, model: Any, processor: Any) -> Path:
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _vit(folder: Path) -> Path:
    size = {"height": 64, "width": 64}
    return _save(
        folder,
        transformers.ViTModel(transformers.ViTConfig(**VISION)),
        transformers.ViTImageProcessorPil(size=size),
    )


def _convnext(folder: Path) -> Path:
    shape = {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2, "initializer_range": 0.2}
    processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 64})
    return _save(folder, transformers.ConvNextModel(transformers.ConvNextConfig(**shape)), processor)


def _resnet(folder: Path) -> Path:
    shape = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1]}
    processor = transformers.BitImageProcessorPil(
        size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}
    )
    return _save(folder, transformers.ResNetModel(transformers.ResNetConfig(**shape)), processor)


def _siglip2(folder: Path) -> Path:
    vision = {**SMALL, "patch_size": 16, "num_patches": 16}
    config = transformers.Siglip2Config(text_config={**SMALL, "vocab_size": 64}, vision_config=vision)
    processor = transformers.Siglip2ImageProcessorPil(max_num_patches=16, patch_size=16)
    return _save(folder, transformers.Siglip2Model(config), processor)


@pytest.mark.parametrize(
    ("make", "pixels", "tokens"),
    [
        (_vit, StepPixels, 17),
        (_convnext, ProcessorPixels, 64),
        (_resnet, StepPixels, 64),
        (_siglip2, ProcessorPixels, 16),
    ],
)
def test_other_families(
    make: Callable[[Path], Path], pixels: type, tokens: int, tmp_path: Path, items: list[ImageItem]
) -> None:
    torch.manual_seed(0)
    folder, contents = make(tmp_path), [item.content for item in items]
    encoder = load(folder)
    assert isinstance(encoder._pixels, pixels)
    assert encoder.tokens == tokens
    expected = by_transformers(folder, contents)
    assert lowest_cosine(encode(encoder, contents), expected) > 0.9999
    assert lowest_cosine(reference_image_vectors(ModelSettings(id=str(folder)), items), expected) > 0.99999


def test_a_vision_tower_alone_is_projected(tmp_path: Path, items: list[ImageItem]) -> None:
    whole, contents = make_tiny_clip(tmp_path / "whole"), [item.content for item in items]
    tower_class = transformers.CLIPVisionModelWithProjection
    tower_class.from_pretrained(whole, projection_dim=32).save_pretrained(tmp_path / "tower")
    processor = "preprocessor_config.json"
    (tmp_path / "tower" / processor).write_text((whole / processor).read_text())
    tower = load(tmp_path / "tower")
    assert tower.dimensions == 32
    assert lowest_cosine(encode(tower, contents), encode(load(whole), contents)) > 0.99999


def test_a_classifier_without_a_pooler_gives_its_class_token(tmp_path: Path, items: list[ImageItem]) -> None:
    torch.manual_seed(0)
    classifier = transformers.ViTForImageClassification(transformers.ViTConfig(**VISION)).eval()
    processor = transformers.ViTImageProcessorPil(size={"height": 64, "width": 64})
    _save(tmp_path, classifier, processor)
    images = [load_image(Image.open(BytesIO(item.content))) for item in items]
    with torch.inference_mode():
        hidden = classifier.vit(**processor(images, return_tensors="pt")).last_hidden_state[:, 0].numpy()
    assert lowest_cosine(encode(load(tmp_path), [item.content for item in items]), hidden) > 0.9999
    assert lowest_cosine(reference_image_vectors(ModelSettings(id=str(tmp_path)), items), hidden) > 0.99999


def test_dimensions_and_normalize_as_told(tmp_path: Path, items: list[ImageItem]) -> None:
    folder, contents = make_tiny_clip(tmp_path), [item.content for item in items]
    whole, cut = encode(load(folder, normalize=False), contents), encode(load(folder, dimensions=8), contents)
    assert np.allclose(cut, whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True), atol=1e-5)
    reference = reference_image_vectors(ModelSettings(id=str(folder), dimensions=8), items)
    assert np.allclose(cut, reference, atol=2e-3)
    with pytest.raises(ModelError, match=r"model.dimensions: 33 is more than the 32"):
        load(folder, dimensions=33)


def test_threads_give_what_one_gives_and_faults_stay_where_they_are(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    encoder = load(make_tiny_clip(tmp_path), dtype="auto")
    good = [ImageItem(content) for content in list(files.values())[:8]]
    mixed = [ImageItem(b"<html>gone</html>"), *good, ImageItem(b"")]
    expected = encoder.encode(encoder.prepare(good).inputs)

    def both(_: int) -> np.ndarray:
        prepared = encoder.prepare(mixed)
        assert {position: fault.code for position, fault in prepared.faults.items()} == {
            0: "not_an_image",
            9: "no_image",
        }
        assert prepared.counts.tolist() == [0, *[encoder.tokens] * 8, 0]
        return encoder.encode(prepared.inputs[1:9])

    with ThreadPoolExecutor(6) as pool:
        for vectors in pool.map(both, range(12)):
            assert lowest_cosine(vectors, expected) > 0.9999


def test_models_that_cannot_serve_are_told_in_words(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="takes no images; name a model for images"):
        load(tiny_model)
    config = transformers.ViTMAEConfig(**VISION, decoder_num_hidden_layers=1, decoder_hidden_size=32)
    processor = transformers.ViTImageProcessorPil(size={"height": 64, "width": 64})
    with pytest.raises(ModelError, match="other vectors of the same image at every call"):
        load(_save(tmp_path / "mae", transformers.ViTMAEModel(config), processor))
    folder = make_tiny_clip(tmp_path / "clip")
    assert load(folder)._model.model.text_model is None  # its memory is given back
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)


def test_weights_that_are_not_all_there_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_tiny_clip(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    # What only the text tower needs may be missing.
    kept = {name: value for name, value in tensors.items() if not name.startswith("text_model.")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    load(folder)
    del kept["visual_projection.weight"]
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 of its parameters, such as visual_projection.weight"):
        load(folder)


@pytest.mark.parametrize(
    ("kind", "prefix"), [("clip", "module."), ("dinov2", "model."), ("siglip", "0.auto_model.")]
)
def test_a_prefix_before_every_weights_name_is_taken_off(
    kind: str, prefix: str, tmp_path: Path, items: list[ImageItem]
) -> None:
    from safetensors.torch import load_file, save_file

    folder, contents = make_tiny_clip(tmp_path, kind=kind), [item.content for item in items]
    expected = encode(load(folder), contents)
    file = folder / "model.safetensors"
    save_file({prefix + name: value for name, value in load_file(file).items()}, file, {"format": "pt"})
    assert lowest_cosine(encode(load(folder), contents), expected) > 0.99999
    save_file(
        {f"{part}.{name}": value.clone() for name, value in load_file(file).items() for part in "ab"}, file
    )
    with pytest.raises(ModelError, match=r"lack \d+ of its parameters.*by other names, such as a\."):
        load(folder)


def test_statistics_that_are_not_all_there_are_refused(tmp_path: Path) -> None:
    """A batch norm's are no parameters; without them, an image's vector is another."""
    from safetensors.torch import load_file, save_file

    file = _resnet(tmp_path) / "model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if "running_var" not in name}
    save_file(kept, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack \d+ of its parameters, such as .*running_var"):
        load(tmp_path)


def test_saved_dimensions_and_settings_for_texts(tmp_path: Path, items: list[ImageItem]) -> None:
    """A directory that sentence-transformers saved: images are cut as the texts that they share a space with."""
    SentenceTransformer(str(make_tiny_clip(tmp_path / "clip")), device="cpu", truncate_dim=8).save(
        str(folder := tmp_path / "saved")
    )
    contents = [item.content for item in items]
    assert encode(load(folder), contents).shape == (len(items), 8)
    assert reference_image_vectors(ModelSettings(id=str(folder)), items).shape == (len(items), 8)
    with pytest.raises(ModelError, match=r"model.pooling: 'mean' pools .* and the records are images"):
        load(folder, pooling="mean")


def test_a_model_that_loses_too_much_computes_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_tiny_clip(tmp_path)
    monkeypatch.setattr(guards, "pick_dtype", lambda asked, device: "bfloat16" if asked == "auto" else asked)
    assert load(folder, dtype="auto").dtype == "bfloat16"
    monkeypatch.setattr(guards, "LEAST_COSINE_AUTO", 0.9999999)
    with caplog.at_level(logging.WARNING):
        assert load(folder, dtype="auto").dtype == "float32"
    assert "computes in float32, not bfloat16" in caplog.text
