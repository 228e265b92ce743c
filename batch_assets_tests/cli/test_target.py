"""What a verb makes of an output root's own word; what comes of it is in `test_foreign_roots.py`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from batch_assets.cli.target import find_pipeline, refuse_namesake
from batch_assets.components.attributes import COMPONENT_TYPE
from batch_assets.errors import ConfigurationError
from batch_assets.ledger.ledger import Ledger
from batch_assets.settings.in_place import RayExecutorSettings

NAME = "texts"


@pytest.fixture
def root(tmp_path: Path) -> Callable[..., Path]:
    """Writes a root's pipeline.json with fields of its own."""

    def write(**fields: Any) -> Path:
        folder = tmp_path / "out"
        folder.mkdir()
        configuration = {"source": {"uri": "/in"}, "output": {"root": "/elsewhere"}, **fields}
        owner = {"pipeline": NAME, "epoch": 1, "source": ["/in"], "configuration": configuration}
        (folder / "pipeline.json").write_bytes(orjson.dumps(owner))
        return folder

    return write


def test_no_permission_is_read_from_a_root(tmp_path: Path, root: Callable[..., Path]) -> None:
    folder = root(
        source={"uri": "/in", "allow_private_addresses": True},
        model={"trust_remote_code": True, "prompt": "query: "},
        executor={"type": "ray", "address": "ray://theirs:10001", "workers": 2},
    )
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    settings = find_pipeline(str(folder), ledger, None)
    assert not settings.model.trust_remote_code and not settings.source.allow_private_addresses
    assert settings.executor == RayExecutorSettings(type="ray", workers=2), "no cluster of theirs is joined"
    assert settings.model.prompt == "query: " and settings.output.root == str(folder)


@pytest.mark.parametrize("pipeline", [["texts"], {"a": 1}, None, "no such name!"])
def test_a_root_without_a_name_is_refused_in_words(
    tmp_path: Path, root: Callable[..., Path], pipeline: Any
) -> None:
    folder = root()
    owner = orjson.loads((folder / "pipeline.json").read_bytes())
    (folder / "pipeline.json").write_bytes(orjson.dumps({**owner, "pipeline": pipeline}))
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    ledger.attach(NAME, str(folder), 1)
    with pytest.raises(ConfigurationError, match=r"pipeline\.json"):
        find_pipeline(str(folder), ledger, None)


@pytest.mark.parametrize("target", ["my_texts", "my-texts", "My-Texts", "My Texts"])
def test_a_folders_name_stands_for_its_pipeline(
    tmp_path: Path, root: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    file = tmp_path / "defs" / "My-Texts" / "defs.yaml"
    file.parent.mkdir(parents=True)
    fields = {"source": {"uri": "/in"}, "executor": {"type": "gpu"}, "output": {"root": "/out"}}
    file.write_bytes(orjson.dumps({"type": COMPONENT_TYPE, "attributes": fields}))
    monkeypatch.chdir(tmp_path)
    ledger, defs = Ledger.open(f"sqlite:///{tmp_path}/ledger.db"), str(tmp_path / "defs")
    former = root()
    ledger.attach("my_texts", str(former), 1)
    settings = find_pipeline(target, ledger, defs)
    assert settings.name == "my_texts" and settings.output.root == "/out"
    refuse_namesake(target, settings, ledger)
    with pytest.raises(ConfigurationError, match=r"no pipeline 'Other-Texts' .*\(known: my_texts\)"):
        find_pipeline("Other-Texts", ledger, defs)


def test_a_folder_that_exists_is_no_other_pipelines_name(
    tmp_path: Path, root: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root().rename(tmp_path / "My-Texts")
    monkeypatch.chdir(tmp_path)
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    ledger.attach("my_texts", "/elsewhere", 1)
    assert find_pipeline("My-Texts", ledger, None).name == NAME
