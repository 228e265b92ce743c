"""Ids over the whole life of a pipeline: planned, embedded, published."""

from pathlib import Path
from typing import Any

import pytest

from batch_assets.control.merging import merge_shards
from batch_assets.control.pipeline import open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.errors import AccountingError, ConfigurationError
from batch_assets.merge.publishing import current
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sources.record_ids import IdCount
from batch_assets_tests.command import published, write_records
from batch_assets_tests.control.builders import embed_all, make_settings, open_ledger, run
from batch_assets_tests.fakes import FakeHost


def settings_of(folder: Path, ids: str) -> PipelineSettings:
    return make_settings(folder, source={"uri": f"{folder}/src", "id_column": "id", "ids": ids})


def write(folder: Path, name: str, *ids: Any) -> None:
    write_records(folder / f"src/{name}.jsonl", [{"id": one, "text": f"text {one}"} for one in ids])


def test_ids_of_a_later_generation_count_and_are_refused_once_they_must_be_unique(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, host = open_ledger(tmp_path), FakeHost()
    write(tmp_path, "a", 1, 2)
    unique, any_ids = settings_of(tmp_path, "unique"), settings_of(tmp_path, "any")
    run(unique, ledger, host)
    version = current(open_pipeline(unique, ledger, host.executor(unique)).storage)

    write(tmp_path, "b", 3, 2)
    pipeline = open_pipeline(unique, ledger, host.executor(unique))
    with pytest.raises(ConfigurationError, match=r"1 ids .*: '2' in a\.jsonl row 1 and b\.jsonl row 1; mend"):
        plan_source(pipeline)
    assert len(ledger.shards("texts")) == 1

    pipeline = run(any_ids, ledger, host)
    assert published(tmp_path / "out")["record_id"].to_list() == ["1", "2", "3", "2"]
    assert "1 ids occur more than once (2 records)" in caplog.text

    # Planned and embedded before they had to be unique: the merge is the last to see it.
    pipeline = open_pipeline(unique, ledger, host.executor(unique))
    published_by_now = current(pipeline.storage)
    assert published_by_now != version
    with pytest.raises(AccountingError, match=r"source.ids: unique, but 1 ids .* nothing is published"):
        merge_shards(pipeline)
    assert current(pipeline.storage) == published_by_now


def test_a_mended_file_replaces_the_ids_that_it_had(tmp_path: Path) -> None:
    ledger, host = open_ledger(tmp_path), FakeHost()
    write(tmp_path, "a", 1, 2)
    settings = settings_of(tmp_path, "unique")
    run(settings, ledger, host)
    write(tmp_path, "a", 2, 1, 3)
    pipeline = open_pipeline(settings, ledger, host.executor(settings))
    assert plan_source(pipeline, replace=True).new_keys == ["g0002-00000"]
    embed_all(settings, ledger, host)
    manifest = merge_shards(pipeline).manifest
    assert (manifest.rows, manifest.ids) == (3, IdCount())
