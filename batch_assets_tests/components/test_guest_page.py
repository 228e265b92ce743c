"""What docs/in-your-project.md shows in Python is what Dagster loads."""

import ast
from typing import Any

import dagster as dg
import pytest

from batch_assets.components import shared_definitions
from batch_assets.orchestration.pipeline import build_pipeline_definitions
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets.settings.project import LEDGER
from batch_assets_tests.module_imports import REPOSITORY
from batch_assets_tests.test_docs import fences

PAGE = REPOSITORY / "docs" / "in-your-project.md"


def shown(containing: str) -> dict[str, Any]:
    """The names that a block of the page defines."""
    [code] = [block for language, block in fences(PAGE) if language == "python" and containing in block]
    names: dict[str, Any] = {"__name__": "shown"}
    exec(compile(ast.parse(code), PAGE.name, "exec"), names)
    return names


def pipeline(**fields: object) -> dg.Definitions:
    attributes = {"source": {"uri": "/in"}, "output": {"root": "/out"}, **fields}
    return build_pipeline_definitions(parse_pipeline(attributes, "article_vectors", "a test"))


def test_a_ledger_of_the_projects_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_URL", "sqlite://")
    own = shown("LedgerResource")["ledger"]()
    found = dg.Definitions.merge(pipeline(), shared_definitions(project=[LEDGER]), own)
    dg.Definitions.validate_loadable(found)
    assert "LEDGER_URL" in str((found.resources or {})[LEDGER])


def test_definitions_without_a_folder_of_them() -> None:
    dg.Definitions.validate_loadable(shown("shared_definitions")["defs"])


def test_an_asset_behind_a_pipeline() -> None:
    own = dg.Definitions(assets=[shown("batch_assets.load")["neighbours"]])
    found = dg.Definitions.merge(pipeline(), shared_definitions(), own)
    dg.Definitions.validate_loadable(found)
    behind = found.resolve_asset_graph().get(dg.AssetKey("neighbours"))
    assert {key.to_user_string() for key in behind.parent_keys} == {"article_vectors/merged_embeddings"}


def test_an_executor_that_starts_pods() -> None:
    own = shown("k8s_job_executor")["executor"]()
    found = dg.Definitions.merge(pipeline(), shared_definitions(), own)
    dg.Definitions.validate_loadable(found)
    assert found.executor is not None
