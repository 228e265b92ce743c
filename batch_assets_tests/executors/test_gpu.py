"""A shard runner in this process, on whatever this machine has."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from batch_assets.errors import ConfigurationError, ModelError
from batch_assets.executors.aws_batch.account import AwsBatchAccount
from batch_assets.executors.base import ShardRunner
from batch_assets.executors.gpu import GpuMachine
from batch_assets.executors.ray.cluster import RayCluster
from batch_assets.executors.registry import ExecutorHost
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import OutputSettings, PipelineSettings
from batch_assets.settings.source import SourceSettings
from batch_assets_tests.builders import make_tiny_clip
from batch_assets_tests.executors.contract import RunnerContract
from batch_assets_tests.pictures import image_file

MACHINE = GpuMachine()


class TestGpuExecutor(RunnerContract):
    def make(self, settings: PipelineSettings) -> ShardRunner:
        return MACHINE.executor(settings)


def test_a_pipeline_of_images_is_searched_by_texts_and_by_images(tmp_path: Path) -> None:
    images = PipelineSettings(
        name="images",
        source=SourceSettings(uri=str(tmp_path / "in"), format="webdataset"),
        model=ModelSettings(id=str(make_tiny_clip(tmp_path / "clip")), dtype="float32"),
        output=OutputSettings(root=str(tmp_path / "out")),
    )
    machine = GpuMachine("cpu")
    one, same, other = (
        machine.embed_query_image(images, image_file(number, format))
        for number, format in ((0, "PNG"), (0, "WEBP"), (1, "PNG"))
    )
    assert one @ same > 0.99 > one @ other
    text = machine.embed_query(images, "a cat")
    assert text.shape == one.shape
    assert np.linalg.norm(text) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ConfigurationError, match="HTML page"):
        machine.embed_query_image(images, b"<html></html>")
    texts = images.model_copy(update={"source": SourceSettings(uri=str(tmp_path / "in.jsonl"))})
    with pytest.raises(ConfigurationError, match="embeds texts"):
        machine.embed_query_image(texts, image_file(0))


@pytest.mark.parametrize(
    ("visible", "asked", "card"),
    [
        (None, "cuda:1", "cuda:1"),
        (None, "auto", "cuda:0"),
        ("0", "cuda", "cuda:0"),
        ("1", "auto", "cuda:1"),
        ("3, 1", "cuda:1", "cuda:1"),
        ("GPU-8932f937,GPU-1f00aa02", "cuda:1", "cuda:GPU-1f00aa02"),
        ("MIG-7f2e61ad", "auto", "cuda:MIG-7f2e61ad"),
    ],
)
def test_the_card_that_is_leased_is_the_one_that_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, asked: str, card: str
) -> None:
    """So that two commands, each shown one card of its own, do not wait for each other."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    pipeline = PipelineSettings(
        name="texts",
        source=SourceSettings(uri=str(tmp_path / "in.jsonl")),
        model=ModelSettings(id="some/model"),
        output=OutputSettings(root=str(tmp_path / "out")),
    )
    assert GpuMachine(asked).executor(pipeline).exclusive_device() == card


def test_a_model_that_is_not_whole_is_found_before_the_gpu_is_touched(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    pipeline = PipelineSettings(
        name="texts",
        source=SourceSettings(uri=str(tmp_path / "in.jsonl")),
        model=ModelSettings(id=str(folder)),
        output=OutputSettings(root=str(tmp_path / "out")),
    )
    executor = GpuMachine("cpu").executor(pipeline)
    monkeypatch.setattr(executor, "exclusive_device", lambda: "cuda:0")
    with pytest.raises(ModelError, match="lack 16 of its parameters"):
        executor.check()


@pytest.mark.parametrize("host", [GpuMachine("cpu"), RayCluster(), AwsBatchAccount()])
def test_a_query_gets_the_models_prompt_for_queries_or_a_persons(
    host: ExecutorHost, tiny_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    prompts = {"query": "find: ", "document": "the text: "}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    pipeline = PipelineSettings(
        name="texts",
        source=SourceSettings(uri=str(tmp_path / "in.jsonl")),
        model=ModelSettings(id=str(folder), dtype="float32"),
        output=OutputSettings(root=str(tmp_path / "out")),
    )
    model = SentenceTransformer(str(folder), device="cpu")
    for prompt, expected in (
        (None, model.encode_query("read a file", normalize_embeddings=True)),
        ("key: ", model.encode("key: read a file", normalize_embeddings=True)),
        ("", model.encode("read a file", normalize_embeddings=True)),
    ):
        asked = pipeline.model.model_copy(update={"query_prompt": prompt})
        vector = host.embed_query(pipeline.model_copy(update={"model": asked}), "read a file")
        assert vector @ expected > 0.99999
