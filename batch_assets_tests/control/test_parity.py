"""Parity reads what was merged, whatever has become of the shard since, and what is left of its source."""

from pathlib import Path

import numpy as np
import pytest

from batch_assets.control import parity
from batch_assets.control.parity import check_parity, measure_parity
from batch_assets.control.pipeline import Pipeline
from batch_assets.errors import ModelError, NotReady
from batch_assets.merge.base import Manifest
from batch_assets.merge.parity import read_parity
from batch_assets.merge.publishing import open_current
from batch_assets.merge.verification import verify
from batch_assets.paths import merged_metadata
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.control.builders import PER_SHARD, make_settings, open_ledger, run
from batch_assets_tests.fakes import FakeHost, fake_vector


@pytest.fixture(autouse=True)
def _reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own library makes of a text what the fake executor does."""
    monkeypatch.setattr(
        parity, "reference_vectors", lambda model, texts: np.stack([fake_vector(text) for text in texts])
    )


def pipeline_of(folder: Path, shards: int = 2) -> tuple[Pipeline, Manifest]:
    """A pipeline that has published, and what; each shard has a file of its own in the source."""
    (folder / "in").mkdir()
    records = some_records(shards * PER_SHARD)
    for shard in range(shards):
        rows = records[shard * PER_SHARD : (shard + 1) * PER_SHARD]
        write_records(folder / "in" / f"{shard}.jsonl", rows)
    settings = make_settings(folder, source={"uri": f"{folder}/in", "id_column": "id"})
    pipeline = run(settings, open_ledger(folder), FakeHost())
    manifest = open_current(pipeline.storage)
    assert manifest is not None
    return pipeline, manifest


def test_the_merged_rows_are_compared(tmp_path: Path) -> None:
    pipeline, manifest = pipeline_of(tmp_path)
    for file in (tmp_path / "out" / "shards").rglob("embeddings-*.parquet"):
        file.unlink()
    found = measure_parity(pipeline, manifest)
    assert found.passed
    assert found.compared == 10
    assert found.message == (
        "lowest cosine 1.000000 over 10 records (float32 against float32); 0.99999 is asked for"
    )


def test_vectors_that_are_others_do_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, manifest = pipeline_of(tmp_path)
    monkeypatch.setattr(
        parity, "reference_vectors", lambda model, texts: np.stack([fake_vector(text[1:]) for text in texts])
    )
    found = check_parity(pipeline, manifest)
    assert not found.passed
    assert found.sentence.startswith("parity FAILED: lowest cosine -0.")
    assert read_parity(pipeline.storage, manifest.version) == found
    report = verify(pipeline.storage)
    assert (report.problems, report.notes) == (
        [],
        [f"{manifest.version}: when it was merged, {found.sentence}"],
    )


def test_no_number_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, manifest = pipeline_of(tmp_path)
    monkeypatch.setattr(parity, "reference_vectors", lambda model, texts: np.full((len(texts), 8), np.nan))
    found = check_parity(pipeline, manifest)
    assert (found.passed, found.lowest_cosine, found.compared) == (False, None, 10)


def test_what_is_left_of_a_source_is_compared(tmp_path: Path) -> None:
    pipeline, manifest = pipeline_of(tmp_path)
    (tmp_path / "in" / "0.jsonl").unlink()
    found = measure_parity(pipeline, manifest)
    assert found.passed
    assert found.compared == 5
    assert "5 records of the sample cannot be read again: " in found.message
    assert "0.jsonl" in found.message


def test_a_source_of_which_nothing_is_left_cannot_be_compared(tmp_path: Path) -> None:
    pipeline, manifest = pipeline_of(tmp_path)
    write_records(tmp_path / "in" / "0.jsonl", [{"id": "x", "text": "another text"}])
    (tmp_path / "in" / "1.jsonl").unlink()
    with pytest.raises(
        NotReady, match=r"none of the 10 records .* can be read again from the source: .*0\.jsonl"
    ):
        measure_parity(pipeline, manifest)
    found = check_parity(pipeline, manifest)
    assert (found.passed, found.compared) == (False, 0)
    assert found.sentence.startswith("parity could not be checked: none of the 10 records")


def test_a_model_that_cannot_be_loaded_is_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, manifest = pipeline_of(tmp_path)

    def fail(*_: object) -> np.ndarray:
        raise ModelError("torch is not installed; install batch-assets[gpu]")

    monkeypatch.setattr(parity, "reference_vectors", fail)
    found = check_parity(pipeline, manifest)
    assert not found.passed
    assert found.message == (
        "could not be checked: ModelError: torch is not installed; install batch-assets[gpu]"
    )


def test_vectors_of_another_length_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, manifest = pipeline_of(tmp_path)
    monkeypatch.setattr(parity, "reference_vectors", lambda model, texts: np.zeros((len(texts), 384)))
    found = check_parity(pipeline, manifest)
    assert not found.passed
    assert "vectors of 384 dimensions, and ours have 8" in found.message


def test_vectors_without_a_direction_are_alike(tmp_path: Path) -> None:
    zeros = np.zeros((1, 8), np.float32)
    assert parity._cosines(zeros, zeros).tolist() == [1.0]
    assert parity._cosines(zeros, zeros + 1).tolist() == [0.0]


def test_what_was_found_is_kept_beside_what_the_version_says_of_itself(tmp_path: Path) -> None:
    pipeline, manifest = pipeline_of(tmp_path)
    path = tmp_path / "out" / merged_metadata(manifest.version)
    assert read_parity(pipeline.storage, manifest.version) is None  # as in a version of before
    found = check_parity(pipeline, manifest)
    assert read_parity(pipeline.storage, manifest.version) == found
    assert b'"num_samples": 10' in path.read_bytes()
    for damaged in (b"", b"[]", b'{"parity": 1}', b'{"parity": {"passed": "perhaps"}}'):
        path.write_bytes(damaged)
        assert read_parity(pipeline.storage, manifest.version) is None
