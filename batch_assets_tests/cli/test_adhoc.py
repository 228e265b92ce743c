"""What flags mean: the older tool's names, workers, batches, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.cli import adhoc
from batch_assets.cli.adhoc import adhoc_settings
from batch_assets.errors import ConfigurationError
from batch_assets.settings.in_place import GpuExecutorSettings, RayExecutorSettings
from batch_assets_tests.command import make_machine


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with one Parquet shard as img2dataset writes it, without the images."""
    (tmp_path / "in").mkdir()
    columns = {"url": ["a.jpg"], "caption": ["a dog"], "key": ["00000"], "status": ["success"]}
    pq.write_table(pa.table(columns), tmp_path / "in" / "00000.parquet")
    return tmp_path / "in"


def older(folder: Path, **more: Any) -> dict[str, Any]:
    return {"input_dir": str(folder), "output_dir": str(folder.parent / "out"), **more}


def test_the_older_names_bring_its_formats_and_its_files(images: Path) -> None:
    settings = adhoc_settings(older(images, model_directory="openai/clip", max_samples="7"))
    assert (settings.source.format, settings.source.limit) == ("img2dataset", 7)
    assert settings.output.single_file
    assert settings.model.id == "openai/clip"
    assert adhoc_settings(older(images, format="parquet")).source.format == "parquet"
    (images / "00000.tar").touch()
    assert adhoc_settings(older(images)).source.format == "webdataset"


def test_the_older_names_make_the_key_the_id(images: Path) -> None:
    assert adhoc_settings(older(images)).source.id_column == "key"
    assert adhoc_settings(older(images, id_column="url")).source.id_column == "url"
    assert adhoc_settings(older(images, format="parquet")).source.id_column is None
    flags = {"input": str(images), "output": str(images.parent / "out"), "format": "img2dataset"}
    assert adhoc_settings(flags).source.id_column is None
    pq.write_table(pa.table({"url": ["a.jpg"]}), images / "00000.parquet")
    assert adhoc_settings(older(images)).source.id_column is None
    (images / "00000.parquet").write_bytes(b"damaged")
    assert adhoc_settings(older(images)).source.id_column is None
    (images / "00000.parquet").unlink()
    (images / "a.jpg").touch()
    settings = adhoc_settings(older(images))
    assert (settings.source.format, settings.source.id_column) == ("imagefolder", "key")
    (images / "00000.tar").touch()
    assert adhoc_settings(older(images)).source.id_column == "key"


def test_a_root_that_is_there_goes_on_with_its_ids(images: Path) -> None:
    (images.parent / "out").mkdir()
    begun = {"pipeline": "adhoc", "epoch": 1, "source": [], "configuration": {"source": {"uri": str(images)}}}
    (images.parent / "out/pipeline.json").write_text(json.dumps(begun))
    assert adhoc_settings(older(images)).source.id_column is None


def test_the_present_names_read_texts_unless_told(images: Path) -> None:
    flags = {"input": str(images), "output": str(images.parent / "out")}
    settings = adhoc_settings(flags)
    assert settings.source.format is None and not settings.source.images
    assert not settings.output.single_file
    settings = adhoc_settings(flags | {"image_column": "url", "allow_private_addresses": True})
    assert settings.source.images and settings.source.allow_private_addresses


@pytest.mark.parametrize(
    ("given", "devices", "workers", "said"),
    [
        ({"num_workers": "4"}, 0, None, "one process, with all cores"),
        ({"num_workers": "4"}, 1, None, "one process, with all cores"),
        ({"num_workers": "2"}, 4, 2, ""),
        ({"num_workers": "4"}, 2, 2, "there are 2 GPUs"),
        ({"num_workers": "1"}, 4, None, ""),
        ({"num_workers": "4", "executor": "gpu"}, 4, None, "one process, with all cores"),
        ({"num_workers": "3", "executor": "ray"}, 0, 3, ""),
        ({"executor": "ray"}, 0, "auto", ""),
    ],
)
def test_workers_are_rays_where_there_is_something_for_them(
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: dict[str, str],
    devices: int,
    workers: int | str | None,
    said: str,
) -> None:
    monkeypatch.setattr(adhoc, "_cuda_devices", lambda: devices)
    executor = adhoc_settings(older(images, batch_size="16", **given)).executor
    assert isinstance(executor, GpuExecutorSettings if workers is None else RayExecutorSettings)
    assert getattr(executor, "workers", None) == workers
    assert executor.batch_records == 16
    printed = " ".join(capsys.readouterr().err.split())
    assert said in printed and bool(printed) == bool(said)


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ({"input": "elsewhere"}, "--input and --input-dir"),
        ({"num_workers": "some"}, "'some'"),
        ({"num_workers": "0"}, "'0'"),
        ({"num_workers": "4", "executor": "bedrock"}, "bedrock has no workers"),
        ({"batch_size": "many"}, "many"),
    ],
)
def test_what_cannot_be_meant_is_refused(images: Path, flags: dict[str, str], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        adhoc_settings(older(images, **flags))


def test_its_configuration_files_are_refused_by_what_there_is_instead(images: Path) -> None:
    machine = make_machine(images.parent / "home")
    for flag in ("--env=prod", "--config=prod.yaml"):
        result = machine.run("run", "--input_dir", images, "--output_dir", images.parent / "out", flag)
        assert result.returncode == 2
        assert flag.partition("=")[0] in result.stderr and "run -f FILE.yaml" in result.stderr
    assert not (images.parent / "out").exists()
