from pathlib import Path

import pytest

from batch_assets.ledger.story import StoryEntry
from batch_assets.merge.parquet import merge
from batch_assets.orchestration import metadata
from batch_assets.orchestration.pipeline import build_pipeline_definitions
from batch_assets.storage import open_storage
from batch_assets_tests.embeddings.builders import write_shard
from batch_assets_tests.orchestration.deployments import make_settings

SHARD = "g0001-00000"


def test_answers_are_told_by_their_tokens_and_their_cost(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    marker = write_shard(storage, SHARD, "erfe", columns={"title": "string"}, task="generate", cost_usd=0.25)
    found = metadata.shard_metadata(marker, "uri", [])
    assert (found["tokens"], found["input_tokens"], found["output_tokens"]) == (5, 5, 205)
    assert found["cost_usd"] == 0.25
    assert "by length in input tokens" in found["lengths"].value

    merged = metadata.merge_metadata(merge(storage, [(SHARD, 4)], "f" * 16).manifest, "uri", 1.0, [])
    assert (merged["input_tokens"], merged["output_tokens"], merged["cost_usd"]) == (5, 205, 0.25)
    columns = {
        column.name: (column.type, column.description) for column in merged["dagster/column_schema"].columns
    }
    assert list(columns)[3:] == ["title", "response", "input_tokens", "output_tokens"]
    assert columns["response"] == ("string", "The model's answer.")


def test_a_shards_story_is_a_table_of_bounded_length_that_quotes_as_text(tmp_path: Path) -> None:
    marker = write_shard(open_storage(str(tmp_path)), SHARD, "ee")
    story = [
        StoryEntry(number, 0.0, "failed", 1, 1, None, f"<b>a|b</b> {number} " + 900 * "x", "tried again")
        for number in range(50)
    ]
    text = str(metadata.shard_metadata(marker, "uri", story)["story"].value)
    lines = text.splitlines()
    assert len(lines) == 22
    assert lines[-1].startswith("| 1970-01-01 00:00:00 UTC | 1 | failed: &lt;b&gt;a\\|b&lt;/b&gt; 49 xx")
    assert lines[-1].endswith("x… | tried again |")
    assert len(text) < 8_000
    assert metadata.shard_metadata(marker, "uri", [])["story"].value == "none"


def test_a_column_called_response_is_told_as_passed_through_beside_vectors(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    marker = write_shard(storage, SHARD, "ee", columns={"response": "string"})
    assert (
        not {"input_tokens", "output_tokens", "cost_usd"} & metadata.shard_metadata(marker, "uri", []).keys()
    )
    merged = metadata.merge_metadata(merge(storage, [(SHARD, 2)], "f" * 16).manifest, "uri", 1.0, [])
    assert "cost_usd" not in merged
    columns = {
        column.name: (column.type, column.description) for column in merged["dagster/column_schema"].columns
    }
    assert columns["response"] == ("string", "Passed through from the source.")
    assert columns["embedding"] == ("float32[8]", "The record's vector.")


BEDROCK = {
    "type": "bedrock",
    "region": "us-east-1",
    "role_arn": "arn:aws:iam::123456789012:role/batch",
    "staging": "s3://bucket/staging/",
    "model_id": "amazon.titan-embed-text-v2:0",
}


@pytest.mark.parametrize(
    ("executor", "checks"),
    [({"type": "gpu"}, {"accounting", "vectors", "parity"}), (BEDROCK, {"accounting", "vectors"})],
)
def test_parity_is_measured_only_in_place(tmp_path: Path, executor: dict, checks: set[str]) -> None:
    definitions = build_pipeline_definitions(make_settings(tmp_path, executor=executor))
    within = {spec.name for asset in definitions.assets or () for spec in asset.check_specs}  # type: ignore[union-attr]
    beside = {spec.name for check in definitions.asset_checks or () for spec in check.check_specs}
    assert within | beside == checks
