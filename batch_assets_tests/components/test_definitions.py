"""What Dagster loads: quickly, without heavy libraries, from whichever defs folder."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from syrupy.assertion import SnapshotAssertion

from batch_assets import definitions
from batch_assets.errors import ConfigurationError
from batch_assets_tests.components.test_embedding_pipeline import declare

REPOSITORY = Path(__file__).parents[2]
HEAVY = [
    "aiohttp",
    "pandas",
    "redis",
    "torch",
    "transformers",
    "sentence_transformers",
    "boto3",
    "botocore",
    "dagster_aws",
    "polars",
    "ray",
]
LOAD = f"""
import json, sys, time
import dagster
alone = time.process_time()
from batch_assets.definitions import defs
graph = defs().resolve_asset_graph()
print(json.dumps({{
    "assets": len(graph.get_all_asset_keys()),
    "heavy": [name for name in {HEAVY!r} if name in sys.modules],
    "times_dagster": time.process_time() / alone,
}}))
"""


def load(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> dg.Definitions:
    """The code location as it is with this $BATCH_ASSETS_DEFS."""
    if folder is None:
        monkeypatch.delenv("BATCH_ASSETS_DEFS", raising=False)
    else:
        monkeypatch.setenv("BATCH_ASSETS_DEFS", str(folder))
    return definitions.defs()


def described(loaded: dg.Definitions) -> dict[str, Any]:
    """All that a person or a program can rely on, in words."""
    graph = loaded.resolve_asset_graph()
    assets: dict[str, Any] = {}
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        partitions = node.partitions_def
        assets[key.to_user_string()] = {
            "after": sorted(parent.to_user_string() for parent in node.parent_keys),
            "group": node.group_name,
            "kinds": sorted(node.kinds),
            "partitions": partitions.name if isinstance(partitions, dg.DynamicPartitionsDefinition) else None,
            "shards in a run": node.backfill_policy.max_partitions_per_run if node.backfill_policy else None,
            "pools": sorted(node.pools or ()),
            "checks": sorted(check.name for check in node.check_keys),
        }
    sensors = {
        sensor.name: f"every {sensor.minimum_interval_seconds} s, {sensor.default_status.value}"
        for sensor in loaded.sensors or ()
    }
    return {"assets": assets, "sensors": sensors, "resources": sorted(loaded.resources or ())}


def test_what_a_code_location_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    for name in ("first", "second"):
        declare(tmp_path, {"source": {"uri": "in/"}, "output": {"root": f"out/{name}"}}, name)
    declare(tmp_path, {"source": {"pipeline": "second"}, "output": {"root": "out/third"}}, "third")
    assert described(load(monkeypatch, tmp_path)) == snapshot


def test_the_repositorys_own_pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    found = described(load(monkeypatch, None))
    assert {"quickstart/merged_embeddings", "photographs/merged_embeddings"} <= found["assets"].keys()
    assert list(found["sensors"]) == [
        "new_input",
        "job_completion",
        "merge_ready",
        "failure_notification",
    ]
    assert found["resources"] == [
        "batch_assets_aws_batch",
        "batch_assets_bedrock",
        "batch_assets_gateway",
        "batch_assets_gpu",
        "batch_assets_ledger",
        "batch_assets_notifications",
        "batch_assets_ray",
        "batch_assets_sagemaker",
    ]


def test_an_empty_folder_is_a_code_location_without_pipelines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = described(load(monkeypatch, tmp_path))
    assert found["assets"] == {}
    assert len(found["sensors"]) == 4


def test_a_folder_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"defs folder {tmp_path}/none does not exist"):
        load(monkeypatch, tmp_path / "none")


def loaded_anew() -> dict[str, Any]:
    """What a process of its own finds as it loads the repository's code location."""
    environment = {name: value for name, value in os.environ.items() if name != "BATCH_ASSETS_DEFS"}
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment,
        check=True,
    )
    found: dict[str, Any] = json.loads(loaded.stdout)
    return found


def test_loading_is_quick_and_imports_nothing_heavy() -> None:
    found = loaded_anew()
    assert found["assets"] >= 5
    assert found["heavy"] == []
    # Of processor time, beside importing Dagster alone, so that a slow machine does not count. Measured: 1.9; 2.8 where
    # other work runs beside it, and not each time.
    tries = itertools.chain([found], (loaded_anew() for _ in range(4)))
    assert any(one["times_dagster"] < 3 for one in tries)


def test_validate_shows_a_sentence_for_a_wrong_pipeline(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    declare(
        tmp_path / "defs",
        {"source": {"uri": "in/"}, "output": {"root": "out/"}, "shards": {"records": "many"}},
    )
    validated = subprocess.run(
        [Path(sys.executable).with_name("dagster"), "definitions", "validate", "-w", "workspace.yaml"],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path / "home"),
             "BATCH_ASSETS_DEFS": str(tmp_path / "defs")},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    told = validated.stdout + validated.stderr
    assert validated.returncode == 1
    assert f"{tmp_path}/defs/texts/defs.yaml: shards.records: 'many' cannot be used" in told
    assert told.count('  File "') <= 1, "a wall of traceback"
