"""Parity of images with the model's own library, and what a plan of images will take."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.control.estimate import estimate
from batch_assets.control.parity import measure_parity as measure
from batch_assets.control.pipeline import Pipeline
from batch_assets.encoders.patches import patches
from batch_assets.errors import NotReady
from batch_assets.executors.gpu import GpuMachine
from batch_assets.merge.parity import ParityOutcome
from batch_assets.merge.publishing import open_current
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets_tests.builders import make_tiny_clip
from batch_assets_tests.control.builders import open_ledger, run
from batch_assets_tests.pictures import image_file

ROWS = 12


def make_settings(folder: Path, model: Path, **more: Any) -> PipelineSettings:
    values = {
        "source": {"uri": f"{folder}/in", "format": "img2dataset"},
        "model": {"id": str(model), **more},
        "shards": {"records": 8},
        "output": {"root": f"{folder}/out"},
    }
    return parse_pipeline(values, "pictures", "a test")


def write_images(folder: Path, *, urls: bool = False) -> None:
    """Some photographs, the third broken: as bytes, or as files that `url` names."""
    contents = [image_file(number) if number != 2 else b"<html>" for number in range(ROWS)]
    (folder / "in").mkdir()
    table: dict[str, Any] = {"key": [f"{number:05}" for number in range(ROWS)], "caption": ["x"] * ROWS}
    if urls:
        names = [f"{folder}/{number}.jpg" for number in range(ROWS)]
        for name, content in zip(names, contents, strict=True):
            Path(name).write_bytes(content)
        table["url"] = names
    else:
        table["jpg"] = contents
    pq.write_table(pa.table(table), folder / "in" / "00000.parquet")


def embedded(settings: PipelineSettings, folder: Path) -> Pipeline:
    return run(settings, open_ledger(folder), GpuMachine(device="cpu"))  # type: ignore[arg-type]


def measure_parity(pipeline: Pipeline) -> ParityOutcome:
    """What is found of the published version."""
    manifest = open_current(pipeline.storage)
    assert manifest is not None
    return measure(pipeline, manifest)


@pytest.mark.parametrize("urls", [False, True])
def test_published_images_are_what_transformers_makes_of_them(urls: bool, tmp_path: Path) -> None:
    write_images(tmp_path, urls=urls)
    pipeline = embedded(make_settings(tmp_path, make_tiny_clip(tmp_path / "clip")), tmp_path)
    found = measure_parity(pipeline)
    assert found.passed
    assert found.compared == ROWS - 1  # the broken one is not published
    # Large JPEGs are decoded at a reduced scale: that is no fault to be blocked for.
    assert (found.dtype, found.threshold) == ("float32", 0.9995)
    if not urls:
        return
    # What is gone since, or no image any more, is no fault of the vectors.
    (tmp_path / "0.jpg").unlink()
    (tmp_path / "1.jpg").write_bytes(b"<html>")
    found = measure_parity(pipeline)
    assert found.passed
    assert found.compared == ROWS - 3
    assert "2 records of the sample cannot be read again: an image cannot be fetched" in found.message
    for number in range(ROWS):
        (tmp_path / f"{number}.jpg").unlink(missing_ok=True)
    with pytest.raises(NotReady, match=r"none of the 11 records of v000001-.* can be read again"):
        measure_parity(pipeline)


def test_a_users_own_model_is_called_again_for_each(tmp_path: Path) -> None:
    write_images(tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    code = """
import numpy as np
class ModelImpl:
    def load(self): pass
    def encode(self, items):
        vectors = [np.asarray(item["image"].resize((4, 4)), dtype=float).ravel() - 128 for item in items]
        return vectors
"""
    (model / "model.py").write_text(code)
    pipeline = embedded(make_settings(tmp_path, model, trust_remote_code=True), tmp_path)
    assert measure_parity(pipeline).passed
    # As if a batch had come back in another order.
    (model / "model.py").write_text(
        code.replace("return vectors", "return vectors[::-1] if len(vectors) > 1 else vectors")
    )
    swapped = embedded(make_settings(tmp_path, model, trust_remote_code=True), tmp_path)
    assert not measure_parity(swapped).passed


@pytest.mark.parametrize(("kind", "expected"), [("clip", 17), ("siglip", 16), ("dinov2", 17)])
def test_a_plan_of_images_is_estimated_by_their_patches(kind: str, expected: int, tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path / "model", kind=kind)
    assert patches(ModelSettings(id=str(folder))) == expected
    settings = make_settings(tmp_path, folder)
    found = estimate(settings, GpuMachine(device="cpu").executor(settings), [1000], [], None)
    assert (found.records, found.tokens) == (1000, 1000 * expected)
    # 2 operations for each of the weights of two layers, 64 wide: attention 4 · 64², perceptron 2 · 64 · 256.
    assert found.seconds is not None
    assert 0 <= found.seconds < 10
    assert estimate(settings, GpuMachine().executor(settings), [1000], [], 50.0).seconds == 20
