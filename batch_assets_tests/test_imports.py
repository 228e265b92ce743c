"""The package with its core dependencies alone: all of it imports, the UI loads, nothing heavy comes."""

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from batch_assets_tests.module_imports import PACKAGE, REPOSITORY, package_imports

# Put before code that runs in a new interpreter: modules of the extras are as good as not installed.
HIDE = """
import importlib, json, pkgutil, sys

HIDDEN = set(json.loads(sys.argv[1]))

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def core_distributions() -> set[str]:
    """The project's dependencies without extras, and all that those need in turn."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    waiting = [(Requirement(text), "") for text in project["dependencies"]]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *requirement.extras):
            if f"{name}[{wanted}]" not in found:
                found.add(f"{name}[{wanted}]")
                needs = importlib.metadata.requires(name) or []
                waiting += [(Requirement(text), wanted) for text in needs]
    return {name.split("[")[0] for name in found}


def modules_of_extras() -> list[str]:
    """Installed modules that an installation without extras would lack."""
    core = core_distributions()
    return [
        module
        for module, providers in importlib.metadata.packages_distributions().items()
        if not core & {canonicalize_name(provider) for provider in providers} and module != "batch_assets"
    ]


def run_python(code: str, home: Path, hidden: list[str]) -> list[str]:
    """The lines that `code` prints in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", HIDE + code, json.dumps(hidden)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={"PATH": "", "DAGSTER_HOME": str(home), "HOME": str(home)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_module_imports_without_extras(tmp_path: Path) -> None:
    hidden = modules_of_extras()
    assert {"torch", "transformers", "sentence_transformers", "psycopg2"} <= set(hidden)
    code = """
import batch_assets
for module in pkgutil.walk_packages(batch_assets.__path__, "batch_assets."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print(module.name)
"""
    imported = run_python(code, tmp_path, hidden)
    assert {"batch_assets.definitions", "batch_assets.cli", "batch_assets.executors.gpu"} <= set(imported)


def test_definitions_load_without_extras(tmp_path: Path) -> None:
    code = """
from batch_assets.definitions import defs
for key in defs().resolve_all_asset_keys():
    print(key.to_user_string())
"""
    assert "quickstart/merged_embeddings" in run_python(code, tmp_path, modules_of_extras())


def test_importing_definitions_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """
import batch_assets.definitions
print(*sorted({"torch", "transformers", "boto3", "dagster_aws", "polars"} & sys.modules.keys()))
"""
    assert run_python(code, tmp_path, hidden=[]) == [""]


def test_importing_the_package_imports_no_library(tmp_path: Path) -> None:
    code = """
before = {name.split(".")[0] for name in sys.modules}
import batch_assets
print(batch_assets.load.__name__, *{name.split(".")[0] for name in sys.modules} - before - sys.stdlib_module_names)
"""
    assert run_python(code, tmp_path, hidden=[]) == ["load batch_assets"]


def test_what_is_imported_at_once_is_declared_as_a_dependency() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    providers = importlib.metadata.packages_distributions()
    own = {"batch_assets", *sys.stdlib_module_names}
    undeclared: list[str] = []
    for found in package_imports():
        module = found.module.split(".")[0]
        if not found.deferred and module not in own:
            provided_by = {canonicalize_name(name) for name in providers.get(module, [])}
            if not declared & provided_by:
                undeclared.append(found.place)
    assert undeclared == []


def test_every_folder_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []
