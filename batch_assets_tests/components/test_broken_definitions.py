"""Dagster where a pipeline is broken: the location loads, shows it and goes on; `dg check` refuses it."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from batch_assets import definitions
from batch_assets.components import declared
from batch_assets.errors import ConfigurationError
from batch_assets.orchestration.broken import ASSETS
from batch_assets.settings.project import RESOURCE_KEYS
from batch_assets_tests.components.test_declared import KINDS, files
from batch_assets_tests.components.test_embedding_pipeline import declare
from batch_assets_tests.module_imports import REPOSITORY

OVER_NONE = {"source": {"pipeline": "none"}, "output": {"root": "/out/over"}}


def load(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dg.Definitions:
    monkeypatch.setenv("BATCH_ASSETS_DEFS", str(folder))
    found = definitions.defs()
    dg.Definitions.validate_loadable(found)
    return found


def why_it_fails(found: dg.Definitions, name: str) -> str:
    """What a run of the pipeline's first asset says."""
    job = found.resolve_implicit_global_asset_job_def()
    key = dg.AssetKey([name, "shard_plan"])
    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(instance=instance, asset_selection=[key], raise_on_error=False)
    [event] = done.filter_events(lambda event: event.is_step_failure)
    told = event.step_failure_data.user_failure_data
    assert told is not None
    return told.description or ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_pipeline_shows_itself_beside_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    declare(tmp_path, files("/out/good", schedule="day"), "good")
    file = tmp_path / "broken" / "defs.yaml"
    KINDS[kind][0](file)
    found = load(monkeypatch, tmp_path)
    graph = found.resolve_asset_graph()
    shown = "_No_Name" if kind == "a name that is none" else "broken"
    assert {key.path[0] for key in graph.get_all_asset_keys()} == {"good", shown}
    broken = [graph.get(dg.AssetKey([shown, asset])) for asset in ASSETS]
    assert all("**This pipeline cannot be loaded" in (node.description or "") for node in broken)
    assert all(node.group_name == shown and "broken" in node.kinds for node in broken)
    # Its partitions stay what they were, so that a backfill that is under way says what is wrong.
    partitions = broken[1].partitions_def
    assert isinstance(partitions, dg.DynamicPartitionsDefinition) and partitions.name == f"{shown}_shards"
    assert len(list(found.sensors or ())) == 4
    assert [schedule.name for schedule in found.schedules or ()] == ["good_schedule"]
    assert str(file) in why_it_fails(found, shown)


def test_a_name_that_is_only_guessed_is_taken_from_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    declare(tmp_path, files("/out/one", name="texts"), "elsewhere")
    file = declare(tmp_path, files("/out/two", name="{{ env.NOT_SET }}"), "texts")
    found = load(monkeypatch, tmp_path)
    graph = found.resolve_asset_graph()
    shown = {key.path[0]: graph.get(key).kinds for key in graph.get_all_asset_keys()}
    assert shown.keys() == {"texts", "_texts"} and "broken" not in shown["texts"]
    assert str(file) in why_it_fails(found, "_texts")


TOO_MANY_DIGITS = "attributes:\n  shards: {records: 0x1" + "0" * 5000 + "}\n"


def test_what_dagster_cannot_take_of_one_concerns_that_one_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    declare(tmp_path, files("/out/good"), "good")
    file = declare(tmp_path, files("/out/bad"), "bad")
    file.write_text(file.read_text().replace("attributes:\n", TOO_MANY_DIGITS))
    found = load(monkeypatch, tmp_path)
    graph = found.resolve_asset_graph()
    shown = {key.path[0]: graph.get(key).kinds for key in graph.get_all_asset_keys()}
    assert shown.keys() == {"good", "bad"} and "broken" not in shown["good"]
    told = "pipeline 'bad': Dagster cannot take its definitions: ValueError: Exceeds the limit"
    assert told in why_it_fails(found, "bad")
    monkeypatch.setenv("DAGSTER_IS_DEFS_VALIDATION_CLI", "1")
    with pytest.raises(ConfigurationError, match=told):
        load(monkeypatch, tmp_path)


def test_check_refuses_what_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    declare(tmp_path, files("/out/good"), "good")
    declare(tmp_path, files("/out/good"), "same_root")
    file = declare(tmp_path, OVER_NONE, "broken")
    assert load(monkeypatch, tmp_path)
    monkeypatch.setenv("DAGSTER_IS_DEFS_VALIDATION_CLI", "1")
    with pytest.raises(ConfigurationError) as refused:
        load(monkeypatch, tmp_path)
    assert f"{file}: source.pipeline: 'none'" in str(refused.value)
    assert "same_root/defs.yaml: output.root: '/out/good' is also that of pipeline 'good'" in str(
        refused.value
    )


def test_the_folder_of_the_package_itself_is_no_different(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its pipelines are loaded without Dagster's loader, which would take all of it or nothing."""
    declare(tmp_path, files("/out/good"), "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "defs.yaml").write_text("a: [")
    monkeypatch.setattr(declared, "DEFAULT_DEFS", tmp_path)
    names = {key.path[0] for key in load(monkeypatch, tmp_path).resolve_asset_graph().get_all_asset_keys()}
    assert names == {"good", "bad"}


def test_in_anybodys_project_wrong_fields_concern_their_pipeline_alone() -> None:
    documents = {
        "first": files("out/first", sourse=1, resources={"batch_assets_ledger": "project"}),
        "good": files("out/good"),
        "größe": files("out/third"),
        "grüße": files("out/fourth"),
        "over": OVER_NONE,
        "one": files("out/one", name="same"),
        "two": files("out/two", name="same"),
        "over_same": {"source": {"pipeline": "same"}, "output": {"root": "out/over"}},
        "top": {"source": {"pipeline": "over_same"}, "output": {"root": "out/top"}},
        "texts": files("out/five", name="{{ env.NOT_SET }}"),
        "elsewhere": files("out/texts", name="texts"),
        "over_texts": {"source": {"pipeline": "texts"}, "output": {"root": "out/over_texts"}},
    }
    with create_defs_folder_sandbox() as sandbox:
        for folder, attributes in documents.items():
            declare(sandbox.defs_folder_path, attributes, folder)
        file = declare(sandbox.defs_folder_path, files("out/digits"), "digits")
        file.write_text(file.read_text().replace("attributes:\n", TOO_MANY_DIGITS))
        (sandbox.defs_folder_path / "theirs.py").write_text(
            "import dagster as dg\n\n\n@dg.definitions\ndef theirs():\n"
            '    return dg.Definitions(resources={"batch_assets_ledger": "their own"})\n'
        )
        with sandbox.build_all_defs() as found:
            dg.Definitions.validate_loadable(found)
            graph = found.resolve_asset_graph()
            loaded = {
                key.path[0] for key in graph.get_all_asset_keys() if "broken" not in graph.get(key).kinds
            }
            assert loaded == {"good", "texts", "over_texts"}
            broken = {key.path[0] for key in graph.get_all_asset_keys()} - loaded
            assert broken == {"first", "_gr__e", "over", "same", "over_same", "top", "_texts", "digits"}
            assert (found.resources or {}).keys() == {*RESOURCE_KEYS}
            assert "sourse: there is no such field" in why_it_fails(found, "first")
            told = why_it_fails(found, "same")
            assert "one/defs.yaml" in told and "two/defs.yaml" in told
            assert "source.pipeline: 'same' cannot be loaded: " in why_it_fails(found, "over_same")
            assert "source.pipeline: 'over_same' cannot be loaded: " in why_it_fails(found, "top")
            assert "variable NOT_SET is not set" in why_it_fails(found, "_texts")
            told = why_it_fails(found, "_gr__e")
            assert (
                "größe/defs.yaml: name: 'größe' cannot" in told
                and "grüße/defs.yaml: name: 'grüße' cannot" in told
            )


def test_dg_check_defs_of_anybodys_project_fails(tmp_path: Path) -> None:
    package = tmp_path / "project" / "other_project"
    file = declare(package / "defs", files("out/", sourse=1))
    for folder in (package, package / "defs"):
        (folder / "__init__.py").touch()
    (package / "definitions.py").write_text(
        "from pathlib import Path\nimport dagster as dg\n\n\n@dg.definitions\ndef defs():\n"
        "    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
    )
    (package.parent / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "other_project"\n'
    )
    checked = subprocess.run(
        [Path(sys.executable).with_name("dg"), "check", "defs", "--no-check-yaml"],
        cwd=package.parent,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": f"{package.parent}:{REPOSITORY}"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = checked.stdout + checked.stderr
    assert checked.returncode == 1, told
    assert f"{file}: sourse: there is no such field" in told
