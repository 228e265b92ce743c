"""Parity reads what is published, whatever has become of the shard since."""

from pathlib import Path

import numpy as np
import pytest

from batch_assets.control import parity
from batch_assets.control.parity import measure_parity
from batch_assets.errors import NotReady
from batch_assets_tests.control.builders import make_settings, open_ledger, run, write_input
from batch_assets_tests.fakes import FakeHost, fake_vector


def test_the_published_rows_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_input(tmp_path, 2)
    pipeline = run(make_settings(tmp_path), open_ledger(tmp_path), FakeHost())
    for file in (tmp_path / "out" / "shards").rglob("embeddings-*.parquet"):
        file.unlink()
    monkeypatch.setattr(
        parity, "reference_vectors", lambda model, texts: np.stack([fake_vector(text) for text in texts])
    )
    found = measure_parity(pipeline)
    assert found.passed and found.sampled == 10


def test_an_empty_sample_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_input(tmp_path, 1)
    pipeline = run(make_settings(tmp_path), open_ledger(tmp_path), FakeHost())
    monkeypatch.setattr(parity, "read_rows", lambda *arguments: {})
    with pytest.raises(NotReady, match="nothing to compare"):
        measure_parity(pipeline)
