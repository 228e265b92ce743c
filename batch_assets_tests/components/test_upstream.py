"""A pipeline that names another one as its source: found, resolved, or refused in words."""

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from batch_assets.components import EmbeddingPipeline
from batch_assets.components.attributes import COMPONENT_TYPE, load_file
from batch_assets.components.declared import load_folder
from batch_assets.errors import ConfigurationError
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets_tests.components.test_embedding_pipeline import declare


def files(root: str, **more: Any) -> dict[str, Any]:
    return {"source": {"uri": "/in"}, "output": {"root": root}, **more}


def shards_of(pipeline: str, **source: Any) -> dict[str, Any]:
    return {"source": {"pipeline": pipeline, **source}, "output": {"root": f"out/{pipeline}-again"}}


def test_another_pipeline_becomes_the_uri_of_its_shards(tmp_path: Path) -> None:
    declare(tmp_path, files("s3://bucket/a/"), "a")
    declare(tmp_path / "group", files("out/", name="second"), "b")
    over_a = declare(tmp_path, shards_of("a"), "over_a")
    found = load_folder(tmp_path).pipelines
    assert list(found) == ["a", "second", "over_a"]
    assert load_file(over_a) == [found["over_a"]]
    source = found["over_a"].source
    assert (source.pipeline, source.uri, source.id_column) == ("a", "shards:s3://bucket/a", "record_id")

    nested = declare(tmp_path / "group", shards_of("second", id_column="doc"), "over_b")
    [settings] = load_file(nested)
    assert settings.source.uri == f"shards:{tmp_path}/group/b/out"
    assert settings.source.id_column == "doc"
    assert load_folder(tmp_path).pipelines["over_b"] == settings


def test_what_a_pipeline_may_do_is_its_own_whatever_it_reads(tmp_path: Path) -> None:
    allowing = files("out/", source={"uri": "/in", "allow_private_addresses": True})
    first = declare(tmp_path, {**allowing, "model": {"trust_remote_code": True}}, "a")
    [upstream] = load_file(first)
    root = Path(upstream.output.root)
    root.mkdir(parents=True)
    owner = {"pipeline": "a", "epoch": 1, "source": [], "configuration": upstream.model_dump(mode="json")}
    (root / "pipeline.json").write_text(json.dumps(owner))
    declare(tmp_path, shards_of("a"), "over_a")
    found = load_folder(tmp_path).pipelines
    assert found["a"].model.trust_remote_code and found["a"].source.allow_private_addresses
    assert not found["over_a"].model.trust_remote_code
    assert not found["over_a"].source.allow_private_addresses


def test_a_pipeline_over_one_that_is_over_another(tmp_path: Path) -> None:
    declare(tmp_path, files("/out/a"), "a")
    declare(tmp_path, shards_of("a"), "b")
    declare(tmp_path, shards_of("b"), "c")
    assert load_folder(tmp_path).pipelines["c"].source.uri == f"shards:{tmp_path}/b/out/a-again"


def test_resolved_settings_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    declare(tmp_path, files("/out/a"), "a")
    declare(tmp_path, shards_of("a"), "b")
    settings = load_folder(tmp_path).pipelines["b"]
    assert PipelineSettings.model_validate_json(settings.model_dump_json()) == settings


def test_what_cannot_be_resolved_is_refused_with_the_file(tmp_path: Path) -> None:
    first = declare(tmp_path, shards_of("b"), "a")
    second = declare(tmp_path, shards_of("c"), "b")
    declare(tmp_path, files("/out"), "other")
    refused = (
        rf"{second}: source\.pipeline: 'c': there is no such pipeline in {tmp_path} \(known: a, other\)$"
    )
    with pytest.raises(ConfigurationError, match="^" + refused):
        load_file(second, tmp_path)
    above = rf"^{first}: source\.pipeline: 'b' cannot be loaded: {refused}"
    with pytest.raises(ConfigurationError, match=above):
        load_file(first, tmp_path)
    declare(tmp_path, shards_of("a"), "c")
    with pytest.raises(ConfigurationError, match=rf"^{first}: .*in a circle \(a → b → c → a\)"):
        load_file(first, tmp_path)
    declare(tmp_path, shards_of("b"), "b")
    with pytest.raises(ConfigurationError, match=rf"^{first}: .*in a circle \(a → b → b\)"):
        load_file(first, tmp_path)
    with pytest.raises(
        ConfigurationError, match=rf"^{second}: source\.pipeline: 'b' is this pipeline itself"
    ):
        load_file(second)
    limited = declare(tmp_path, shards_of("other", limit=9), "limited")
    with pytest.raises(
        ConfigurationError, match=rf"^{limited}: source\.limit: 9: .* set it in pipeline other$"
    ):
        load_file(limited)


def test_the_graph_shows_whose_shards_are_read() -> None:
    with create_defs_folder_sandbox() as sandbox:
        for path, attributes in {"a": files("out/"), "group/b": shards_of("a")}.items():
            sandbox.scaffold_component(
                component_cls=EmbeddingPipeline,
                defs_path=path,
                defs_yaml_contents={"type": COMPONENT_TYPE, "attributes": attributes},
            )
        with sandbox.build_all_defs() as definitions:
            graph = definitions.resolve_asset_graph()
            node = graph.get(dg.AssetKey(["b", "shard_plan"]))
            assert node.parent_keys == {dg.AssetKey(["a", "shard_plan"])}
            checked = graph.get(dg.AssetKey(["b", "input_shards"]))
            assert checked.parent_keys == {node.key, dg.AssetKey(["a", "embedding_outputs"])}
            assert "the shards of pipeline `a`, key for key" in (node.description or "")
            assert os.fspath(sandbox.defs_folder_path) not in (node.description or "")
