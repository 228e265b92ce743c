"""A model directory's files are data: none of them has code run, unless the directory is trusted by name."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.encoders.base import ImageItem
from batch_assets.encoders.reference import reference_image_vectors
from batch_assets.encoders.text import TextEncoder
from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings
from batch_assets_tests.builders import make_tiny_clip

Plant = Callable[[Path, Path], None]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def use_module(folder: Path, kind: str, path: str = "1_Pooling") -> None:
    """Have the model's second module be one of a class of this name."""
    first, _ = json.loads((folder / "modules.json").read_text())
    modules = [first, {"idx": 1, "name": "1", "path": path, "type": kind}]
    (folder / "modules.json").write_text(json.dumps(modules))


def own_class_beside_it(folder: Path, _: Path) -> None:
    use_module(folder, "own.Pooling")


def class_that_is_installed(folder: Path, planted: Path) -> None:
    use_module(folder, f"{planted.stem}.Pooling")


def class_behind_a_router(folder: Path, planted: Path) -> None:
    use_module(folder, "sentence_transformers.models.Router", "router")
    (folder / "router" / "query_0_Own").mkdir(parents=True)
    routes = {"types": {"query_0_Own": f"{planted.stem}.Own"}, "structure": {"query": ["query_0_Own"]}}
    for name in ("router_config.json", "config.json"):
        (folder / "router" / name).write_text(
            json.dumps({**routes, "parameters": {"default_route": "query"}})
        )


def tokenizer_by_auto_map(folder: Path, _: Path) -> None:
    change(
        folder / "tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", None]}
    )


def model_by_auto_map(folder: Path, _: Path) -> None:
    auto_map = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    change(folder / "config.json", model_type="own", auto_map=auto_map)


def pickle_by_a_module_of_the_library(folder: Path, _: Path) -> None:
    use_module(folder, "sentence_transformers.base.model.pickle", "1_Pooling/payload")


def pickle_by_torch(folder: Path, _: Path) -> None:
    use_module(folder, "sentence_transformers.base.model.torch", "1_Pooling/payload")


BY_CLASS = [own_class_beside_it, class_that_is_installed, class_behind_a_router, model_by_auto_map]
OTHERWISE = [tokenizer_by_auto_map, pickle_by_a_module_of_the_library, pickle_by_torch]


@pytest.fixture
def loaded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, bool]]:
    """Loads a model into which something was planted: why it was refused, and whether the planted code ran."""

    def load(plant: Plant, *, trusted: bool) -> tuple[str, bool]:
        marker = tmp_path / "ran"
        code = f"open({str(marker)!r}, 'w').close()\n"
        (folder / "own.py").write_text(code)
        planted = tmp_path / "installed" / f"planted_{plant.__name__}_{trusted}.py"
        planted.parent.mkdir()
        planted.write_text(code)
        monkeypatch.syspath_prepend(planted.parent)
        # Of a name that says nothing of pickles, which would be refused by their names.
        (folder / "1_Pooling" / "payload").write_bytes(pickle.dumps(Payload(marker)))
        plant(folder, planted)
        try:
            settings = ModelSettings(id=str(folder), dtype="float32", trust_remote_code=trusted)
            TextEncoder.load(settings, device="cpu")
        except ModelError as error:
            return str(error), marker.exists()
        return "", marker.exists()

    return load


@pytest.mark.parametrize("plant", [*BY_CLASS, *OTHERWISE])
def test_no_file_of_a_model_has_code_run(loaded: Callable[..., tuple[str, bool]], plant: Plant) -> None:
    refusal, ran = loaded(plant, trusted=False)
    assert not ran, refusal
    if plant in BY_CLASS:
        assert "--trust-remote-code" in refusal


@pytest.mark.parametrize("plant", BY_CLASS)
def test_it_runs_where_the_directory_is_trusted(
    loaded: Callable[..., tuple[str, bool]], plant: Plant
) -> None:
    assert loaded(plant, trusted=True)[1], "what the test above plants would not run at all"


def test_pickled_weights_are_refused_wherever_they_lie(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(ModelError, match=r"2_Dense/pytorch_model\.bin"):
        TextEncoder.load(ModelSettings(id=str(folder), dtype="float32"), device="cpu")
    assert not marker.exists()


def test_an_image_that_another_program_would_decode_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin, UnidentifiedImageError

    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    image = ImageItem(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n%%EOF\n", "")
    clip = make_tiny_clip(tmp_path / "clip")
    with pytest.raises(UnidentifiedImageError):
        reference_image_vectors(ModelSettings(id=str(clip)), [image])
    assert not (tmp_path / "ran").exists()
