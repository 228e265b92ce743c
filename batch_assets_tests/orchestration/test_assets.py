"""What happens when a person materializes: each asset, each way of asking, as the ledger and the UI end up."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from batch_assets.ledger.holder import Holder
from batch_assets.ledger.states import State
from batch_assets.merge import checks
from batch_assets.orchestration.metadata import COLLECT_TAG, RECOMPUTE_TAG
from batch_assets.orchestration.run import runs_of_order
from batch_assets.sharding.plan import Shard
from batch_assets_tests.command import published
from batch_assets_tests.fakes import fake_vector, find_parity
from batch_assets_tests.ledger.helpers import holds
from batch_assets_tests.orchestration.deployments import (
    SHARD_ASSETS,
    Deployment,
    deploy,
    failure_of,
    make_settings,
    write_shards,
)

MATERIALIZED, FAILED = "MATERIALIZED", "FAILED"


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Five shards, planned. Parity is measured in a test of its own."""
    find_parity(monkeypatch)
    write_shards(tmp_path, 5)
    with deploy(tmp_path) as deployment:
        deployment.plan()
        yield deployment


def marker_of(deployment: Deployment, key: str) -> Path:
    return deployment.root / "shards" / key / "shard.json"


def embed_all(deployment: Deployment) -> None:
    assert deployment.materialize(*SHARD_ASSETS, shards=(deployment.keys[0], deployment.keys[-1])).success


def test_from_the_plan_to_the_published_rows(deployment: Deployment) -> None:
    assert deployment.keys == [f"g0001-0000{number}" for number in range(5)]
    embed_all(deployment)
    assert set(deployment.shown().values()) == {MATERIALIZED}
    assert len(deployment.shown()) == 5
    merged = deployment.materialize("merged_embeddings")
    assert merged.success
    rows = published(deployment.root)
    assert rows["record_id"].to_list() == [f"record-{number}" for number in range(20)]
    expected = np.stack([fake_vector(text) for text in rows["text"]])
    assert np.array_equal(rows["embedding"].to_numpy(), expected)
    verdicts = {found.check_name: found.passed for found in merged.get_asset_check_evaluations()}
    assert verdicts == {"accounting": True, "vectors": True, "parity": True}


def test_scattered_runs_materialize_their_partitions_only(deployment: Deployment) -> None:
    first, second, third, fourth, fifth = deployment.keys
    for shards in ((first, first), (third, fourth)):
        assert deployment.materialize(*SHARD_ASSETS, shards=shards).success
    assert deployment.shown() == {first: MATERIALIZED, third: MATERIALIZED, fourth: MATERIALIZED}
    assert deployment.host.computed == [first, third, fourth]
    assert deployment.states()[second] is deployment.states()[fifth] is State.PLANNED


def test_a_committed_shard_is_verified_and_reported_not_computed(deployment: Deployment) -> None:
    embed_all(deployment)
    key = deployment.keys[2]
    before, computed = marker_of(deployment, key).read_bytes(), list(deployment.host.computed)
    for names in (SHARD_ASSETS, ["embedding_outputs"]):
        again = deployment.materialize(*names, shards=(key, key))
        assert again.success
        reported = again.asset_materializations_for_node("texts__embedding_outputs")
        assert [event.partition for event in reported] == [key]
    assert marker_of(deployment, key).read_bytes() == before
    assert deployment.host.computed == computed


def test_the_recompute_tag_computes_again_once(deployment: Deployment) -> None:
    embed_all(deployment)
    key = deployment.keys[2]
    before = json.loads(marker_of(deployment, key).read_bytes())
    assert deployment.materialize(*SHARD_ASSETS, shards=(key, key), tags={RECOMPUTE_TAG: "true"}).success
    after = json.loads(marker_of(deployment, key).read_bytes())
    assert deployment.host.computed.count(key) == 2
    assert after["fence"] > before["fence"]
    assert (
        not marker_of(deployment, key)
        .with_name(f"embeddings-{before['fence']}.parquet")
        .samefile(marker_of(deployment, key).with_name(f"embeddings-{after['fence']}.parquet"))
    )
    assert deployment.materialize(
        "embedding_outputs", shards=(key, key), tags={RECOMPUTE_TAG: "true"}
    ).success
    assert deployment.host.computed.count(key) == 3


def test_a_retry_by_dagster_belongs_to_the_order_of_the_run_before() -> None:
    by_hand = dg.DagsterRun("job", root_run_id="first", parent_run_id="second")
    assert runs_of_order(by_hand) == {by_hand.run_id}
    by_dagster = by_hand.with_tags({"dagster/retry_number": "2"})
    assert runs_of_order(by_dagster) == {by_hand.run_id, "first", "second"}


def test_embedding_outputs_alone_and_too_early_reports_what_is_finished(deployment: Deployment) -> None:
    first, second = deployment.keys[:2]
    assert deployment.materialize(*SHARD_ASSETS, shards=(first, second)).success
    early = deployment.materialize("embedding_outputs", shards=(deployment.keys[0], deployment.keys[-1]))
    assert not early.success
    told = failure_of(early)
    assert "3 of 5 shards" in told
    assert deployment.keys[2] in told
    assert "materialize input_shards and submitted_jobs first" in told
    assert deployment.shown() == {first: MATERIALIZED, second: MATERIALIZED} | dict.fromkeys(
        deployment.keys[2:], FAILED
    )
    embed_all(deployment)
    assert set(deployment.shown().values()) == {MATERIALIZED}


def test_asked_for_by_the_sensor_it_leaves_what_is_not_finished(deployment: Deployment) -> None:
    first = deployment.keys[0]
    assert deployment.materialize(*SHARD_ASSETS, shards=(first, first)).success
    shards = (deployment.keys[0], deployment.keys[-1])
    assert deployment.materialize("embedding_outputs", shards=shards, tags={COLLECT_TAG: "finished"}).success
    assert deployment.shown() == {first: MATERIALIZED}


def test_a_shard_that_another_process_holds_is_left_to_it(deployment: Deployment) -> None:
    held = deployment.keys[1]
    ends = (deployment.keys[0], deployment.keys[-1])
    assert deployment.materialize("input_shards", "submitted_jobs", shards=ends).success
    somebody = Holder("another-host", "boot", 4711, "1")
    claim = deployment.ledger.claim("texts", held, somebody)
    assert claim is not None
    alone = deployment.materialize("embedding_outputs", shards=ends)
    assert not alone.success
    assert "1 of 5 shards" in failure_of(alone)
    assert f"{held} is being embedded by pid 4711 on another-host" in failure_of(alone)
    assert held not in deployment.host.computed
    with_jobs = deployment.materialize(*SHARD_ASSETS, shards=ends)
    assert with_jobs.success
    assert holds(deployment.ledger, claim)


def test_a_shard_whose_file_is_gone_costs_only_itself(tmp_path: Path) -> None:
    for name in "abc":
        write_shards(tmp_path, 1, name)
    settings = make_settings(tmp_path)
    with deploy(tmp_path, settings) as deployment:
        first, second, third = deployment.plan()
        (tmp_path / "in" / "b.jsonl").unlink()
        result = deployment.materialize(*SHARD_ASSETS, shards=(first, third))
        assert not result.success
        assert "b.jsonl" in failure_of(result)
        assert deployment.shown() == {first: MATERIALIZED, second: FAILED, third: MATERIALIZED}
        assert deployment.states()[second] is State.EXHAUSTED
        assert "b.jsonl" in deployment.metadata_of("input_shards", second)["error"]


def test_a_shard_that_fails_is_tried_as_often_as_the_settings_say(deployment: Deployment) -> None:
    bad = deployment.keys[3]

    def fail(shard: Shard) -> None:
        if shard.key == bad:
            raise RuntimeError("the device is on fire")

    deployment.host.before = fail
    ends = (deployment.keys[0], deployment.keys[-1])
    for attempt in range(1, 4):
        result = deployment.materialize(*SHARD_ASSETS, shards=ends)
        assert "the device is on fire" in failure_of(result)
        row = deployment.ledger.shard("texts", bad)
        assert row is not None
        assert (row.attempt, row.state) == (attempt, State.READY if attempt < 3 else State.EXHAUSTED)
    assert deployment.shown()[bad] == FAILED
    assert list(deployment.shown().values()).count(MATERIALIZED) == 4
    assert "given up after 3 attempts" in failure_of(deployment.materialize(*SHARD_ASSETS, shards=ends))


def test_a_model_that_cannot_be_loaded_is_said_once_and_costs_no_attempt(deployment: Deployment) -> None:
    deployment.host.model_is_missing = True
    result = deployment.materialize(*SHARD_ASSETS, shards=(deployment.keys[0], deployment.keys[-1]))
    assert failure_of(result) == "model fake: its weights cannot be loaded; install them"
    rows = deployment.ledger.shards("texts")
    assert {(row.state, row.attempt, row.holder) for row in rows} == {(State.READY, 0, None)}


def test_a_terminated_run_gives_its_shards_back_at_once(deployment: Deployment) -> None:
    third = deployment.keys[2]

    def interrupt(shard: Shard) -> None:
        if shard.key == third:
            raise KeyboardInterrupt

    deployment.host.before = interrupt
    ends = (deployment.keys[0], deployment.keys[-1])
    with suppress(KeyboardInterrupt):
        assert not deployment.materialize(*SHARD_ASSETS, shards=ends).success
    states = [(row.state, row.attempt, row.holder) for row in deployment.ledger.shards("texts")]
    assert states == [(State.COLLECTED, 1, None)] * 2 + [(State.READY, 0, None)] * 3


def test_merging_too_early_names_the_missing_shards(deployment: Deployment) -> None:
    first = deployment.keys[0]
    assert deployment.materialize(*SHARD_ASSETS, shards=(first, deployment.keys[3])).success
    early = deployment.materialize("merged_embeddings")
    assert not early.success
    assert "1 of 5 shards of texts are missing: g0001-00004 (planned)" in failure_of(early)
    assert not (deployment.root / "merged" / "CURRENT").exists()


def test_merge_when_any_merges_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_parity(monkeypatch)
    write_shards(tmp_path, 3)
    with deploy(tmp_path, make_settings(tmp_path, merge_when="any")) as deployment:
        keys = deployment.plan()
        assert "3 of 3 shards" in failure_of(deployment.materialize("merged_embeddings"))
        assert deployment.materialize(*SHARD_ASSETS, shards=(keys[1], keys[1])).success
        assert deployment.materialize("merged_embeddings").success
        assert published(deployment.root)["record_id"].to_list() == [f"record-{n}" for n in range(4, 8)]
        assert deployment.metadata_of("merged_embeddings")["planned"] == 4


def test_a_damaged_shard_fails_the_accounting_check_and_nothing_is_published(
    deployment: Deployment, tmp_path: Path
) -> None:
    embed_all(deployment)
    assert deployment.materialize("merged_embeddings").success
    current = (deployment.root / "merged" / "CURRENT").read_text()
    write_shards(tmp_path, 1, "b")
    key = deployment.plan()[-1]
    assert deployment.materialize(*SHARD_ASSETS, shards=(key, key)).success
    fence = json.loads(marker_of(deployment, key).read_bytes())["fence"]
    file = marker_of(deployment, key).with_name(f"embeddings-{fence}.parquet")
    data = bytearray(file.read_bytes())
    data[200] ^= 0xFF
    file.write_bytes(data)
    result = deployment.materialize("merged_embeddings")
    assert not result.success
    [accounting] = result.get_asset_check_evaluations()
    assert (accounting.check_name, accounting.passed) == ("accounting", False)
    assert file.name in (accounting.description or "")
    assert not result.asset_materializations_for_node("texts__merged_embeddings")
    assert (deployment.root / "merged" / "CURRENT").read_text() == current


def test_vectors_that_are_not_finite_stop_publishing(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_all(deployment)
    check = checks.check_vectors

    def spoil_then_check(storage, manifest):
        file = Path(storage.uri) / manifest.path(manifest.parts[2])
        table = pl.read_parquet(file)
        vectors = table["embedding"].to_numpy().copy()
        vectors[1, 3] = np.nan
        write_like(file, vectors)
        return check(storage, manifest)

    monkeypatch.setattr("batch_assets.control.merging.check_vectors", spoil_then_check)
    result = deployment.materialize("merged_embeddings")
    assert not result.success
    verdicts = {found.check_name: found.passed for found in result.get_asset_check_evaluations()}
    assert verdicts == {"accounting": True, "vectors": False}
    assert "is not published" in failure_of(result)
    assert not result.asset_materializations_for_node("texts__merged_embeddings")
    assert not (deployment.root / "merged" / "CURRENT").exists()


def write_like(file: Path, vectors: np.ndarray) -> None:
    """Put other vectors into a Parquet file of embeddings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    place = table.schema.get_field_index("embedding")
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=table.schema.field(place).type)
    pq.write_table(table.set_column(place, table.schema.field(place), column), file)


def test_too_many_failed_records_are_the_accounting_checks_to_say(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_all(deployment)
    monkeypatch.setattr("batch_assets.control.merging._refuse_too_many_failures", refuse)
    result = deployment.materialize("merged_embeddings")
    [accounting] = result.get_asset_check_evaluations()
    assert (accounting.check_name, accounting.passed) == ("accounting", False)


def refuse(*_: object) -> None:
    from batch_assets.errors import AccountingError

    raise AccountingError("5 of 20 records failed")


def test_metadata_keys_are_the_same_each_time(deployment: Deployment) -> None:
    common = {
        "rows", "rejected", "failed", "bytes", "seconds", "records_per_second", "tokens", "uri", "fingerprint",
    }  # fmt: skip
    embed_all(deployment)
    assert deployment.materialize("merged_embeddings").success
    assets = ["shard_plan", *SHARD_ASSETS, "merged_embeddings"]
    first = {asset: deployment.metadata_of(asset) for asset in assets}
    for asset in assets:
        assert common <= first[asset].keys(), asset
    assert first["embedding_outputs"]["rows"] == 4
    assert first["merged_embeddings"]["rows"] == first["merged_embeddings"]["dagster/row_count"] == 20
    for asset in ("input_shards", "embedding_outputs"):
        assert first[asset]["lengths"].startswith("![Records by length")
    assert first["merged_embeddings"]["throughput"].startswith("![Records per second")
    columns = [column.name for column in first["merged_embeddings"]["dagster/column_schema"].columns]
    assert columns[:3] == ["record_id", "source_file", "source_row"]
    deployment.plan()
    embed_all(deployment)
    assert deployment.materialize("merged_embeddings").success
    for asset in assets:
        assert deployment.metadata_of(asset).keys() == first[asset].keys(), asset


def test_planning_again_adds_new_files_as_a_generation(deployment: Deployment, tmp_path: Path) -> None:
    assert deployment.plan() == deployment.keys
    assert deployment.metadata_of("shard_plan")["new_shards"] == 0
    write_shards(tmp_path, 2, "b")
    assert deployment.plan()[5:] == ["g0002-00000", "g0002-00001"]
    assert deployment.metadata_of("shard_plan")["generation"] == 2
    assert deployment.metadata_of("shard_plan")["shards"] == 7
