"""The resource `batch_assets_ray`, and dagster-ray's in its place."""

import ast
from typing import Any

import dagster as dg
import yaml
from dagster_ray import Lifecycle, LocalRay

from batch_assets.executors.ray.cluster import RayCluster
from batch_assets.orchestration.pipeline import build_pipeline_definitions
from batch_assets.orchestration.resources import RayResource, executor_host
from batch_assets.orchestration.shared import build_shared_definitions
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets_tests.module_imports import REPOSITORY
from batch_assets_tests.test_docs import fences


def test_the_resource_names_the_cluster_for_pipelines_that_say_auto() -> None:
    host = RayResource(address="ray://head:10001").create_resource(dg.build_init_resource_context())
    assert executor_host(host) is host
    assert host.address == "ray://head:10001"


def test_a_cluster_that_dagster_ray_has_made_is_joined() -> None:
    class Elsewhere(LocalRay):
        @property
        def ray_address(self) -> str:  # type: ignore[override]
            return "ray://made-for-this-run:10001"

    host = executor_host(Elsewhere(lifecycle=Lifecycle(connect=False)))
    assert isinstance(host, RayCluster)
    assert host.address == "ray://made-for-this-run:10001"
    assert vars(executor_host(LocalRay()))["address"] == "auto"


def test_the_definitions_of_the_page_load() -> None:
    [code] = [block for language, block in fences(REPOSITORY / "docs" / "ray.md") if language == "python"]
    names: dict[str, Any] = {"__name__": "shown"}
    exec(compile(ast.parse(code), "docs/ray.md", "exec"), names)
    page = fences(REPOSITORY / "docs" / "ray.md")
    [declared] = [block for language, block in page if language == "yaml" and "batch_assets_ray" in block]
    pipeline = parse_pipeline(yaml.safe_load(declared)["attributes"], "texts", "docs/ray.md")
    shared = build_shared_definitions(pipeline.resources)
    definitions = dg.Definitions.merge(build_pipeline_definitions(pipeline), shared, names["resources"]())
    dg.Definitions.validate_loadable(definitions)
    assert "texts/embedding_outputs" in {key.to_user_string() for key in definitions.resolve_all_asset_keys()}
