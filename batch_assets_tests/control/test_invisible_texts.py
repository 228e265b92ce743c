"""Texts of which the model's tokenizer leaves nothing count as rejected, a whole shard of them, too."""

from pathlib import Path

import polars as pl

from batch_assets.executors.gpu import GpuMachine
from batch_assets.merge.verification import verify
from batch_assets_tests.command import published, write_records
from batch_assets_tests.control.builders import PER_SHARD, make_settings, open_ledger, run


def test_they_are_accounted_for(tmp_path: Path, tiny_model: Path) -> None:
    texts = ["\u0301"] * PER_SHARD + ["the file", "\ue000", "data", "\u200b", " "]
    write_records(tmp_path / "in.jsonl", [{"id": str(n), "text": text} for n, text in enumerate(texts)])
    settings = make_settings(tmp_path, model={"id": str(tiny_model)})
    run(settings, open_ledger(tmp_path), GpuMachine(device="cpu"))  # type: ignore[arg-type]
    report = verify(settings.output.root)
    assert report.problems == []
    assert report.accounting.line() == "accounting: planned=10 embedded=2 rejected=8 failed=0"
    assert published(tmp_path / "out")["record_id"].to_list() == ["5", "7"]
    [file] = (tmp_path / "out" / "merged").glob("*/failures.parquet")
    failures = pl.read_parquet(file)
    assert failures["stage"].unique().to_list() == ["reject"]
    codes = dict(failures.select("record_id", "error_code").iter_rows())
    assert codes == {**dict.fromkeys("0123468", "invisible_text"), "9": "empty_text"}
