"""What lies beside the pipelines in the package's own `defs/`: left out where it is broken, refused by `dg check`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest

import batch_assets
from batch_assets import definitions
from batch_assets.components import declared
from batch_assets_tests.components.test_declared import files
from batch_assets_tests.components.test_embedding_pipeline import declare

THEIRS = "import dagster as dg\n\n\n@dg.asset\ndef theirs() -> None: ...\n"
WRONG = "raise RuntimeError('this neighbour is broken')\n"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Stands for the package's own `defs/`."""
    (tmp_path / "__init__.py").touch()
    module = ModuleType("batch_assets.defs")
    module.__path__ = [str(tmp_path)]
    module.__file__ = str(tmp_path / "__init__.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(batch_assets, "defs", module, raising=False)
    monkeypatch.setattr(declared, "DEFAULT_DEFS", tmp_path)
    monkeypatch.setenv("BATCH_ASSETS_DEFS", str(tmp_path))
    yield tmp_path
    sys.modules.pop("batch_assets.defs.theirs", None)


@pytest.fixture
def validating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_IS_DEFS_VALIDATION_CLI", "1")


def load() -> set[str]:
    """The first part of each asset's key; each sensor is there once."""
    found = definitions.defs()
    dg.Definitions.validate_loadable(found)
    assert len(list(found.sensors or ())) == 4
    return {key.path[0] for key in found.resolve_asset_graph().get_all_asset_keys()}


@pytest.mark.parametrize("pipelines", [{}, {"good": {}}, {"bad": {"sourse": 1}}], ids=list)
def test_what_is_beside_the_pipelines_is_loaded(folder: Path, pipelines: dict[str, dict[str, int]]) -> None:
    for name, more in pipelines.items():
        declare(folder, files(f"/out/{name}", **more), name)
    (folder / "theirs.py").write_text(THEIRS)
    assert load() == {"theirs", *pipelines}


def test_a_resource_of_the_projects_own_takes_the_place_of_ours(folder: Path) -> None:
    (folder / "theirs.py").write_text(
        THEIRS
        + "\n\nfrom batch_assets.orchestration.resources import LedgerResource\n"
        + "\ndefs = dg.Definitions([theirs], resources={'batch_assets_ledger': LedgerResource()})\n"
    )
    assert load() == {"theirs"}


@pytest.mark.parametrize("pipelines", [[], ["good"]], ids=str)
def test_a_broken_one_is_left_out(folder: Path, pipelines: list[str]) -> None:
    for name in pipelines:
        declare(folder, files(f"/out/{name}"), name)
    (folder / "theirs.py").write_text(WRONG)
    assert load() == {*pipelines}


@pytest.mark.usefixtures("validating")
@pytest.mark.parametrize("pipelines", [[], ["good"]], ids=str)
def test_check_refuses_a_broken_one(folder: Path, pipelines: list[str]) -> None:
    for name in pipelines:
        declare(folder, files(f"/out/{name}"), name)
    assert load() == {*pipelines}
    (folder / "theirs.py").write_text(WRONG)
    with pytest.raises(Exception, match="this neighbour is broken"):
        load()
