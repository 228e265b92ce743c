"""The input manifest: counts that add up, examples, and an estimate of the tokens."""

from pathlib import Path

import pytest

from batch_assets.errors import SourceError
from batch_assets.sharding.manifest import prepare_input, read_input_manifest, write_input_manifest
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.reading import sample_texts
from batch_assets.sharding.upstream import commit_in
from batch_assets.sources.base import Segment
from batch_assets_tests.sharding.planning import plan, write_lines

LINES = [
    '{"text": "four"}',
    "nope",
    '{"text": "ä"}',
    '{"text": ""}',
    '{"text": "sixteen letters!"}',
    "[]",
    "nope",
]


def test_a_manifest_counts_every_record(tmp_path: Path) -> None:
    planned = plan(write_lines(tmp_path / "a.jsonl", LINES), tmp_path / "root")
    manifest = prepare_input(planned.settings, planned.shards[0], planned.summary)
    assert (manifest.planned, manifest.valid, manifest.rejected) == (7, 3, 4)
    assert manifest.rejected_by_code == {"empty_text": 1, "not_an_object": 1, "not_json": 2}
    assert [(e.row, e.code) for e in manifest.examples] == [
        (1, "not_json"), (3, "empty_text"), (5, "not_an_object"), (6, "not_json"),
    ]  # fmt: skip
    assert (manifest.characters, manifest.bytes) == (21, 22)
    assert manifest.lengths == {1: 1, 4: 1, 16: 1}
    assert manifest.estimated_tokens == 5
    write_input_manifest(planned.root, manifest)
    assert read_input_manifest(planned.root, "g0001-00000") == manifest
    assert read_input_manifest(planned.root, "g0001-00001") is None


def test_tokens_are_estimated_from_a_sample(tmp_path: Path) -> None:
    lines = [f'{{"text": "{"w " * (number % 7 + 1)}"}}' for number in range(5_000)]
    planned = plan(write_lines(tmp_path / "a.jsonl", lines), tmp_path / "root")
    asked: list[str] = []

    def count(texts: list[str]) -> list[int]:
        asked.extend(texts)
        return [len(text) // 2 for text in texts]

    manifest = prepare_input(planned.settings, planned.shards[0], planned.summary, count)
    assert manifest.estimated_tokens == manifest.characters // 2
    assert 200 < len(asked) < 600


def test_examples_are_few(tmp_path: Path) -> None:
    planned = plan(write_lines(tmp_path / "a.jsonl", ["nope"] * 5_000), tmp_path / "root")
    manifest = prepare_input(planned.settings, planned.shards[0])
    assert (manifest.rejected, len(manifest.examples), manifest.valid) == (5_000, 20, 0)


def test_other_records_than_planned_are_noticed(tmp_path: Path) -> None:
    planned = plan(write_lines(tmp_path / "a.jsonl", LINES), tmp_path / "root")
    (segment,) = planned.shards[0].segments
    shard = Shard("g0001-00000", (Segment(segment.path, segment.version, 0, 7, 0, segment.last_byte, 8),))
    with pytest.raises(SourceError, match="8 records were planned and 7 are there"):
        prepare_input(planned.settings, shard, planned.summary)


def test_lengths_are_sampled_from_all_over_the_plan(tmp_path: Path) -> None:
    lines = [f'{{"text": "{"x" * (1 + number // 100)}"}}' for number in range(1_000)]
    planned = plan(write_lines(tmp_path / "a.jsonl", lines), tmp_path / "root", {"records": 100})
    sample = sample_texts(planned.settings, planned.shards, 20, planned.summary, planned.root)
    assert [len(text) for text in sample] == [number for number in range(1, 11) for _ in range(2)]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"{}", b'{"upstream": null}', b'{"upstream": {"fence": "x", "sha256": "a"}}'],
)
def test_a_damaged_manifest_names_no_commit(content: bytes) -> None:
    assert commit_in(content) is None
