"""Images by the command: an older tool's flags between local and S3, what lies at the root, and searching.

In this process, since each run would load torch anew; processes of their own are in `test_run.py`.
"""

import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from batch_assets.cli.app import run_command
from batch_assets_tests.builders import make_tiny_clip
from batch_assets_tests.command import ACCOUNTING, make_home
from batch_assets_tests.object_store import s3_server, use_s3

Run = Callable[..., tuple[int, str, str]]
KEYS = [f"{number:05d}" for number in range(6)]
BROKEN = "00004"
COLUMNS = ["url", "key", "caption", "embedding", "meta_width"]
YAML = """
type: batch_assets.components.EmbeddingPipeline
attributes:
  source: {{uri: {source}, format: webdataset, limit: 6}}
  model: {{id: {model}, dtype: float32}}
  executor: {{type: gpu, batch_records: 2}}
  output: {{root: {root}, single_file: true}}
"""

OWN_MODEL = """
open({ran!r}, "w").close()
class ModelImpl:
    def load(self):
        pass
    def encode(self, items):
        return [[*each["image"].size, len(each["text"] or "")] for each in items]
"""


def image_file(number: int) -> bytes:
    """A JPEG that looks like no other."""
    from PIL import Image

    levels = np.random.default_rng(number).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).resize((120, 90), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def shard_file() -> bytes:
    """A tar as img2dataset writes it: eight samples, one of which is a page of HTML."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(8):
            key = f"{number:05d}"
            content = b"<html>404</html>" if key == BROKEN else image_file(number)
            row = {"key": key, "url": f"http://host/{key}.jpg", "caption": f"image {number}", "width": 120}
            for extension, data in {"jpg": content, "json": json.dumps(row).encode()}.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clip(tmp_path_factory.mktemp("model") / "clip")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in a home of its own: exit code, stdout, stderr."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):  # given back afterwards: a flag sets them
        monkeypatch.setenv(name, os.environ.get(name, ""))
        monkeypatch.delenv(name)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BATCH_ASSETS_LEDGER_URL", raising=False)
    make_home(tmp_path / "home")

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["batch-assets", *map(str, arguments)])
        return run_command(), *capsys.readouterr()

    return run


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "00000.tar").write_bytes(shard_file())
    (tmp_path / "data" / "00000_stats.json").write_text("{}")
    return tmp_path / "data"


def accounting(stdout: str) -> tuple[int, ...]:
    found = ACCOUNTING.fullmatch(stdout.strip().splitlines()[-1])
    assert found is not None, stdout
    return tuple(map(int, found.groups()))


@pytest.mark.parametrize(
    ("source", "output"), [("local", "local"), ("local", "s3"), ("s3", "local"), ("s3", "s3")]
)
def test_the_older_tools_flags_between_every_two_places(
    run: Run,
    dataset: Path,
    clip: Path,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    source: str,
    output: str,
) -> None:
    client: Any = use_s3(endpoint, monkeypatch)
    client.upload_file(str(dataset / "00000.tar"), "bucket", "data/00000.tar")
    # The output lies inside the input, as people have it.
    here, there = str(dataset), "s3://bucket/data"
    read, written = (here if place == "local" else there for place in (source, output))
    flags = [
        "--model_directory", clip, "--input_dir", read, "--output_dir", f"{written}/embeddings", "--num_workers", 4,
        "--batch_size=2", "--max_samples", 6, "--aws_region", "us-east-1", "--dtype", "float32",
    ]  # fmt: skip
    code, stdout, stderr = run("run", *flags)
    assert code == 3, stderr
    assert accounting(stdout) == (6, 5, 1, 0)
    assert "--num-workers 4" in stderr
    if output == "s3":
        for name in ("embeddings.parquet", "metadata.json"):
            client.download_file("bucket", f"data/embeddings/{name}", str(tmp_path / name))
        folder = tmp_path
    else:
        folder = dataset / "embeddings"
    rows = pl.read_parquet(folder / "embeddings.parquet")
    assert rows.columns == COLUMNS
    assert rows["key"].to_list() == [key for key in KEYS if key != BROKEN]
    assert rows["caption"][0] == "image 0" and rows["url"][0] == "http://host/00000.jpg"
    assert np.allclose(np.linalg.norm(rows["embedding"].to_numpy(), axis=1), 1, atol=1e-5)
    told = json.loads((folder / "metadata.json").read_text())
    assert (told["num_samples"], told["model"]) == (5, str(clip))

    if source != output:
        return
    # The same as YAML takes the root over: nothing is computed, and nothing of the output is read as input.
    file = tmp_path / "pipelines" / "older" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(YAML.format(source=read, model=clip, root=f"{written}/embeddings"))
    code, stdout, stderr = run("run", "-f", file)
    assert code == 3, stderr
    assert accounting(stdout) == (6, 5, 1, 0)
    assert f"published {told['version']} " in stdout


def test_searching_by_an_image_and_by_a_text(run: Run, dataset: Path, clip: Path, tmp_path: Path) -> None:
    code, _, stderr = run(
        "run", "--input", dataset, "--format", "webdataset", "--output", tmp_path / "out", "--model", clip,
        "--id-column", "key", "--dtype", "float32", "--max-failed", 0.2,
    )  # fmt: skip
    assert code == 0, stderr
    assert not (tmp_path / "out" / "embeddings.parquet").exists()
    (tmp_path / "photo.jpg").write_bytes(image_file(3))
    code, stdout, stderr = run("search", tmp_path / "out", tmp_path / "photo.jpg", "-k", 2)
    assert code == 0, stderr
    first, _ = stdout.splitlines()
    assert first.split() == ["1.000", "00003", "image", "3", "http://host/00003.jpg"]
    code, stdout, stderr = run("search", tmp_path / "out", "an image of noise, " * 300, "-k", 2)
    assert code == 0, stderr
    assert len(stdout.splitlines()) == 2
    for query, word in [
        ("http://127.0.0.1:9/a.jpg", "private"),
        (dataset / "00000_stats.json", "not_an_image"),
    ]:
        code, stdout, stderr = run("search", tmp_path / "out", query)
        assert code == 2 and not stdout
        assert word in stderr


def test_a_models_own_code_runs_only_by_a_word_of_consent(run: Run, dataset: Path, tmp_path: Path) -> None:
    model = tmp_path / "own"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"name": "own", "batch_size": 3}))
    (model / "model.py").write_text(OWN_MODEL.format(ran=str(tmp_path / "ran")))
    flags = [
        "--model_directory",
        model,
        "--input_dir",
        dataset,
        "--output_dir",
        tmp_path / "out",
        "--no-normalize",
    ]
    code, _, stderr = run("run", *flags)
    assert code == 2
    assert "--trust-remote-code" in stderr
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()
    code, stdout, stderr = run("run", *flags, "--trust-remote-code")
    assert code == 3, stderr
    assert accounting(stdout) == (8, 7, 1, 0)
    rows = pl.read_parquet(tmp_path / "out" / "embeddings.parquet")
    assert rows["embedding"].to_list()[0] == [120.0, 90.0, 7.0], "width, height, letters of the caption"
