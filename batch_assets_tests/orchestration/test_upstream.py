"""A pipeline over another one's shards, from input to the published dataset, twice."""

import dataclasses
from pathlib import Path

import dagster as dg
import pytest

from batch_assets.components.attributes import load_folder
from batch_assets.control.parity import Parity
from batch_assets.orchestration import checks
from batch_assets_tests.command import published, some_records, write_records
from batch_assets_tests.components.test_embedding_pipeline import declare
from batch_assets_tests.orchestration.deployments import (
    SHARD_ASSETS,
    Deployment,
    deploy,
    failure_of,
)


def embed(deployment: Deployment, keys: list[str]) -> None:
    assert deployment.materialize(*SHARD_ASSETS, shards=(keys[0], keys[-1])).success


def plan_is_asked_for(deployment: Deployment, cursor: str | None = None) -> bool:
    asked = deployment.tick("new_input", cursor).run_requests or ()
    return [dg.AssetKey([deployment.name, "shard_plan"])] in [request.asset_selection for request in asked]


def test_a_pipeline_over_another_one_follows_its_growth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "measure_parity", lambda pipeline: Parity(1.0, 0.99999, 8, "float32"))
    records = some_records(20)
    write_records(tmp_path / "in" / "a.jsonl", records[:12])
    first = {"source": {"uri": f"{tmp_path}/in", "id_column": "id"}, "shards": {"records": 4}}
    second = {"source": {"pipeline": "first"}, "shards": {"records": 5}, "automation": True}
    declare(tmp_path / "defs", {**first, "output": {"root": f"{tmp_path}/one"}}, "first")
    declare(tmp_path / "defs", {**second, "output": {"root": f"{tmp_path}/two"}}, "second")
    pipelines = load_folder(tmp_path / "defs")
    with deploy(tmp_path, pipelines["first"], pipelines["second"]) as upstream:
        downstream = dataclasses.replace(upstream, pipelines=[pipelines["second"], pipelines["first"]])
        refused = downstream.materialize("shard_plan")
        assert "source.pipeline: 'first' has no committed shard" in failure_of(refused)
        assert not (tmp_path / "two").exists()

        embed(upstream, upstream.plan())
        keys = downstream.plan()
        assert keys == ["g0001-00000", "g0001-00001", "g0001-00002"]
        embed(downstream, keys)
        assert not plan_is_asked_for(downstream)

        write_records(tmp_path / "in" / "b.jsonl", records[12:])
        new = upstream.plan()[3:]
        assert not plan_is_asked_for(downstream)
        embed(upstream, new)
        assert plan_is_asked_for(downstream)
        new = [key for key in downstream.plan() if key not in keys]
        assert new == ["g0002-00000", "g0002-00001"]
        embed(downstream, new)
        assert downstream.materialize("merged_embeddings").success

    rows = published(tmp_path / "two")
    assert rows["record_id"].to_list() == [record["id"] for record in records]
    assert rows["text"].to_list() == [record["text"] for record in records]
    assert rows["source_file"].unique(maintain_order=True).to_list() == [
        *(f"g0001-0000{number}.parquet" for number in range(3)),
        *(f"g0002-0000{number}.parquet" for number in range(2)),
    ]
    assert rows.columns == [
        "record_id", "source_file", "source_row", "id", "text", "number", "embedding", "token_count",
    ]  # fmt: skip
