"""A pipeline over another one's shards in Dagster: its graph, its runs and its sensor, shard by shard."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from batch_assets.components.declared import load_folder
from batch_assets.ledger.states import State
from batch_assets.orchestration.partitions import RANGE_END, RANGE_START
from batch_assets_tests.command import published, some_records, write_records
from batch_assets_tests.components.test_embedding_pipeline import declare
from batch_assets_tests.fakes import find_parity
from batch_assets_tests.orchestration.deployments import (
    SHARD_ASSETS,
    Deployment,
    deploy,
    failure_of,
)

A, B, C = (f"g0001-{number:05d}" for number in range(3))
RECORDS = some_records(16)


@pytest.fixture
def deployments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Deployment, Deployment]]:
    """The upstream with twelve records in three shards, and the downstream; one ledger, one instance."""
    find_parity(monkeypatch)
    write_records(tmp_path / "in" / "a.jsonl", RECORDS[:12])
    first = {"source": {"uri": f"{tmp_path}/in", "id_column": "id"}, "shards": {"records": 4}}
    second = {"source": {"pipeline": "first"}, "shards": {"records": 5}, "automation": True}
    declare(tmp_path / "defs", {**first, "output": {"root": f"{tmp_path}/one"}}, "first")
    declare(tmp_path / "defs", {**second, "output": {"root": f"{tmp_path}/two"}}, "second")
    pipelines = load_folder(tmp_path / "defs").pipelines
    with deploy(tmp_path, pipelines["first"], pipelines["second"]) as upstream:
        yield upstream, dataclasses.replace(upstream, pipelines=[pipelines["second"], pipelines["first"]])


def embed(deployment: Deployment, first: str, last: str | None = None) -> dg.ExecuteInProcessResult:
    return deployment.materialize(*SHARD_ASSETS, shards=(first, last or first))


def asked(deployment: Deployment, cursor: str | None) -> tuple[list[str], str | None]:
    """What `new_input` asks for: `plan`, or the first and last shard of each run; and its cursor."""
    result = deployment.tick("new_input", cursor)
    told: list[str] = []
    for request in result.run_requests or ():
        assert request.asset_selection is not None
        tags = request.tags or {}
        assert {key.path[0] for key in request.asset_selection} == {"second"}
        told.append("plan" if RANGE_START not in tags else f"{tags[RANGE_START]}…{tags[RANGE_END]}")
    return told, result.cursor


def test_it_follows_shard_by_shard(deployments: tuple[Deployment, Deployment], tmp_path: Path) -> None:
    upstream, downstream = deployments
    assert "'first' has no plan" in failure_of(downstream.materialize("shard_plan"))
    assert not (tmp_path / "two").exists()
    assert asked(downstream, None)[0] == []
    upstream.plan()
    told, cursor = asked(downstream, None)
    assert told == ["plan"]
    assert downstream.plan() == [A, B, C]
    told, cursor = asked(downstream, cursor)
    assert told == []
    assert embed(upstream, B).success
    told, cursor = asked(downstream, cursor)
    assert told == [f"{B}…{B}"]

    early = embed(downstream, A, C)
    assert failure_of(early) == (
        f"2 of 3 shards are not materialized: shards {A}, {C} wait for the shards of the same names in pipeline "
        "first, not collected there yet; see `batch-assets status first`"
    )
    assert downstream.shown("input_shards") == {A: "FAILED", B: "MATERIALIZED", C: "FAILED"}
    assert downstream.metadata_of("input_shards", B)["rows"] == 4
    assert downstream.states() == {A: State.PLANNED, B: State.PREPARED, C: State.PLANNED}
    assert embed(downstream, B).success
    assert downstream.materialize(
        "submitted_jobs", shards=(A, C)
    ).success  # nothing to queue, nothing falls over
    late = downstream.materialize("embedding_outputs", shards=(A, B))
    assert f"shard {A} is planned, not ready" in failure_of(late)

    assert embed(upstream, A, C).success
    told, cursor = asked(downstream, cursor)
    assert told == [f"{A}…{A}", f"{C}…{C}"]
    assert embed(downstream, A, C).success
    write_records(tmp_path / "in" / "b.jsonl", RECORDS[12:])
    upstream.plan()
    # The upstream has a partition that the downstream does not have yet.
    assert embed(downstream, A, C).success
    told, cursor = asked(downstream, cursor)
    assert told == ["plan"]
    assert downstream.plan() == [A, B, C, "g0002-00000"]
    assert embed(upstream, "g0002-00000").success
    assert embed(downstream, "g0002-00000").success
    assert asked(downstream, cursor)[0] == []
    assert downstream.materialize("merged_embeddings").success
    rows = published(tmp_path / "two")
    assert rows["record_id"].to_list() == [record["id"] for record in RECORDS]
    assert rows["text"].to_list() == [record["text"] for record in RECORDS]
    assert rows["source_file"].unique(maintain_order=True).to_list() == [
        f"{key}.parquet" for key in (A, B, C, "g0002-00000")
    ]
    assert rows.columns == [
        "record_id", "source_file", "source_row", "id", "text", "number", "embedding", "token_count",
    ]  # fmt: skip


def test_the_graph_shows_it_partition_by_partition(deployments: tuple[Deployment, Deployment]) -> None:
    upstream, downstream = deployments
    upstream.plan()
    downstream.plan()
    graph = downstream.definitions.resolve_asset_graph()
    child, parent = dg.AssetKey(["second", "input_shards"]), dg.AssetKey(["first", "embedding_outputs"])
    assert graph.get(child).parent_keys == {parent, dg.AssetKey(["second", "shard_plan"])}
    assert graph.get(dg.AssetKey(["second", "shard_plan"])).parent_keys == {
        dg.AssetKey(["first", "shard_plan"])
    }
    mapping = graph.get_partition_mapping(child, parent)
    assert isinstance(mapping, dg.IdentityPartitionMapping)
