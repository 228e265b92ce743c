"""Pipelines in somebody else's Dagster project: beside their assets, their resources and each other."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.scaffold.scaffold import get_scaffolder
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from batch_assets.components import EmbeddingPipeline, shared_definitions
from batch_assets.components.attributes import COMPONENT_TYPE, load_file
from batch_assets.components.project_folder import defs_of_project
from batch_assets.errors import ConfigurationError
from batch_assets.orchestration.pipeline import build_pipeline_definitions
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets.settings.project import RESOURCE_KEYS
from batch_assets_tests.module_imports import REPOSITORY

SENSORS = ["failure_notification", "job_completion", "merge_ready", "new_input"]
PROJECT = """
import dagster as dg

days = dg.DailyPartitionsDefinition("2026-01-01")

@dg.asset(partitions_def=days, required_resource_keys={"ledger", "gpu"})
def articles() -> None: ...

@dg.asset(deps=[dg.AssetKey(["first", "merged_embeddings"])])
def report() -> None: ...

@dg.definitions
def theirs():
    return dg.Definitions(assets=[articles, report], resources={"ledger": "a book", "gpu": 7})
"""

WARNED = """
import dagster as dg
from batch_assets.components import shared_definitions
from batch_assets.orchestration.pipeline import build_pipeline_definitions
from batch_assets.settings.pipeline import parse_pipeline

texts = parse_pipeline({"source": {"uri": "/in"}, "output": {"root": "/out"}, "retention": {}}, "texts", "a test")
dg.Definitions.merge(shared_definitions(), build_pipeline_definitions(texts)).get_repository_def()

@dg.asset(backfill_policy=dg.BackfillPolicy.single_run())
def theirs() -> None: ...
"""


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as sandbox:
        yield sandbox


def declare(sandbox: DefsFolderSandbox, folder: str, *documents: dict[str, Any]) -> None:
    file = sandbox.defs_folder_path / folder / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        yaml.safe_dump_all({"type": COMPONENT_TYPE, "attributes": attributes} for attributes in documents)
    )


def pipeline(root: str, **more: object) -> dict[str, Any]:
    return {"source": {"uri": "in/"}, "output": {"root": root}, **more}


def test_pipelines_stand_beside_a_projects_own_assets_and_resources(sandbox: DefsFolderSandbox) -> None:
    declare(sandbox, "First", pipeline("out/first", deps=["articles", "raw/news"]))
    declare(sandbox, "second", pipeline("out/second"), pipeline("out/third", name="third"))
    (sandbox.defs_folder_path / "theirs.py").write_text(PROJECT)
    with sandbox.build_all_defs() as found:
        names = {key.to_user_string() for key in found.resolve_all_asset_keys()}
        assert {
            "articles",
            "report",
            *(f"{name}/shard_plan" for name in ("first", "second", "third")),
        } <= names
        assert sorted(sensor.name for sensor in found.sensors or ()) == SENSORS
        assert (found.resources or {}).keys() == {*RESOURCE_KEYS, "ledger", "gpu"}
        assert found.executor is None
        graph = found.resolve_asset_graph()
        plan = graph.get(dg.AssetKey(["first", "shard_plan"]))
        assert {key.to_user_string() for key in plan.parent_keys} == {"articles", "raw/news"}
        dg.Definitions.validate_loadable(found)
        watched = found.get_repository_def().get_sensor_def("new_input").asset_selection
        assert watched is not None
        assert {key.path[0] for key in watched.resolve(graph)} == {"first", "second", "third"}


def test_a_resource_that_is_left_to_the_project_is_the_projects(sandbox: DefsFolderSandbox) -> None:
    declare(sandbox, "first", pipeline("out/first"))
    declare(sandbox, "second", pipeline("out/second", resources={"batch_assets_ledger": "project"}))
    (sandbox.defs_folder_path / "theirs.py").write_text(
        "import dagster as dg\n\n\n@dg.definitions\ndef theirs():\n"
        '    return dg.Definitions(resources={"batch_assets_ledger": "their own"})\n'
    )
    with sandbox.build_all_defs() as found:
        assert found.resources is not None
        assert found.resources.keys() == {*RESOURCE_KEYS}
        assert "their own" in str(found.resources["batch_assets_ledger"])


IN_PYTHON = """
import dagster as dg
from batch_assets.components import EmbeddingPipeline
from batch_assets.settings.pipeline import parse_pipeline

@dg.component_instance
def mine(context):
    values = {"source": {"uri": "/in"}, "output": {"root": "/out/mine"}}
    return EmbeddingPipeline(parse_pipeline(values, "mine", "this file"))
"""


@pytest.mark.parametrize("beside", [False, True])
def test_a_pipeline_may_be_declared_in_python(sandbox: DefsFolderSandbox, beside: bool) -> None:
    if beside:
        declare(sandbox, "first", pipeline("out/first"))
        declare(sandbox, "second", pipeline("out/second"))
    (sandbox.defs_folder_path / "mine").mkdir()
    (sandbox.defs_folder_path / "mine" / "component.py").write_text(IN_PYTHON)
    with sandbox.build_all_defs() as found:
        assert sorted(sensor.name for sensor in found.sensors or ()) == SENSORS
        dg.Definitions.validate_loadable(found)


def test_a_part_of_a_tree_can_be_loaded_alone(sandbox: DefsFolderSandbox) -> None:
    declare(sandbox, "first", pipeline("out/first"))
    declare(sandbox, "second", pipeline("out/second"))
    for name in ("second", "first"):
        with sandbox.load_component_and_build_defs(defs_path=sandbox.defs_folder_path / name) as (_, found):
            dg.Definitions.validate_loadable(found)
            assert sorted(sensor.name for sensor in found.sensors or ()) == SENSORS
    alone = EmbeddingPipeline(parse_pipeline(pipeline("/out"), "texts", "a test"))
    dg.Definitions.validate_loadable(
        dg.Definitions.merge(shared_definitions(), dg.build_defs_for_component(alone))
    )


def test_without_a_component_tree_the_shared_definitions_are_merged_once() -> None:
    built = [
        build_pipeline_definitions(parse_pipeline(pipeline(f"/out/{name}"), name, "a test"))
        for name in ("first", "second")
    ]
    dg.Definitions.validate_loadable(dg.Definitions.merge(shared_definitions(), *built))
    found = shared_definitions(project=["batch_assets_gpu"])
    assert (found.resources or {}).keys() == {*RESOURCE_KEYS} - {"batch_assets_gpu"}
    with pytest.raises(ConfigurationError, match="there is no resource 'gpu'; known: batch_assets_ledger"):
        shared_definitions(project=["gpu"])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"deps": ["texts/shard_plan"]}, "deps: .*texts/shard_plan is this pipeline's own"),
        ({"deps": ["raw//articles"]}, "deps.0: 'raw//articles' cannot be used: write an asset's key"),
        (
            {"deps": ["raw/a*"]},
            r"deps.0: 'raw/a\*' cannot be used: .*Dagster takes a-z, A-Z, 0-9, _, - and \. in a",
        ),
        ({"deps": ["raw articles"]}, "deps.0: 'raw articles' cannot be used: .*Dagster takes"),
        ({"deps": ["größe"]}, "deps.0: 'größe' cannot be used: .*Dagster takes"),
        (
            {"resources": {"ledger": "project"}},
            "resources.ledger.*there is no such resource; known: batch_assets_led",
        ),
        ({"resources": {"batch_assets_gpu": "mine"}}, "resources.batch_assets_gpu: 'mine' cannot be used"),
    ],
)
def test_wrong_fields_are_refused_in_words(more: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        parse_pipeline(pipeline("/out", **more), "texts", "a test")


@pytest.mark.parametrize("key", ["articles", "Raw/2024_articles", "raw-data/v1.0"])
def test_keys_that_dagster_takes_may_be_named(key: str) -> None:
    built = build_pipeline_definitions(parse_pipeline(pipeline("/out", deps=[key]), "texts", "a test"))
    dg.Definitions.validate_loadable(dg.Definitions.merge(shared_definitions(), built))


def test_what_is_scaffolded_is_a_pipeline(tmp_path: Path) -> None:
    found = get_scaffolder(EmbeddingPipeline)
    assert isinstance(found, dg.Scaffolder)
    parameters = found.get_scaffold_params()
    for given in (
        {},
        {"source": "s3://b/it's: [odd]/", "id_column": "no", "text_column": "true", "output": "/o ut/"},
    ):
        folder = tmp_path / f"My-Texts {len(given)}"
        request = dg.ScaffoldRequest(
            type_name=COMPONENT_TYPE,
            target_path=folder,
            scaffold_format="yaml",
            project_root=tmp_path,
            params=parameters(**given),
        )
        found.scaffold(request)
        [settings] = load_file(folder / "defs.yaml")
        assert settings.name == f"my_texts_{len(given)}"
        assert settings.source.text_column == given.get("text_column", "text")
        assert settings.source.id_column == given.get("id_column")
        assert (settings.source.uri or "").endswith(given.get("source", "/data/My-Texts 0/"))
        assert settings.output.root.endswith(given.get("output", "/embeddings/My-Texts 0/"))


@pytest.mark.parametrize("name", ["2024", "größe", "a" * 25])
def test_nothing_is_scaffolded_under_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    found = get_scaffolder(EmbeddingPipeline)
    assert isinstance(found, dg.Scaffolder)
    request = dg.ScaffoldRequest(
        type_name=COMPONENT_TYPE,
        target_path=tmp_path / name,
        scaffold_format="yaml",
        project_root=tmp_path,
        params=found.get_scaffold_params()(),
    )
    with pytest.raises(ConfigurationError, match=f"'{name}': cannot be a pipeline's name: .*1 to 24 of a-z"):
        found.scaffold(request)
    assert list(tmp_path.iterdir()) == []


def test_relative_paths_count_from_the_folder_of_the_project(tmp_path: Path) -> None:
    file = tmp_path / "src" / "mine" / "defs" / "texts" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump({"type": COMPONENT_TYPE, "attributes": pipeline("out/")}))
    assert load_file(file)[0].output.root == f"{file.parent}/out/"
    assert defs_of_project(file.parent) is None
    (tmp_path / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "mine"\n'
    )
    assert load_file(file)[0].output.root == f"{tmp_path}/out/"
    assert defs_of_project(file.parent) == tmp_path / "src" / "mine" / "defs"
    (tmp_path / "pyproject.toml").write_text("[tool.dg\n")
    assert load_file(file)[0].output.root == f"{file.parent}/out/"


def test_a_projects_own_warnings_are_shown() -> None:
    """In a process of its own: pytest has filters of its own."""
    told = subprocess.run(
        [sys.executable, "-c", WARNED], capture_output=True, text=True, check=True, cwd=REPOSITORY
    ).stderr
    assert told.count("BetaWarning: Parameter `backfill_policy`") == 1, told
