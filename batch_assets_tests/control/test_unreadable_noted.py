"""How long a file stays noted as unreadable, and when the sensor asks for a plan that looks at it again."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.control.housekeeping import read_source_news
from batch_assets.control.pipeline import open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.status import read_status
from batch_assets.errors import LastingStorageError
from batch_assets_tests.control.builders import make_settings, open_ledger, run, write_gzip
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.sources.tables.delta import append, commit, rows
from batch_assets_tests.sources.tars import tar_bytes


def test_it_stays_noted_where_a_later_plan_does_not_look_at_it(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "a.jsonl.gz").write_bytes(write_gzip(folder / "a.jsonl.gz", "a")[:-20])
    write_gzip(folder / "b.jsonl.gz", *(f"b{n}" for n in range(5)))
    settings = make_settings(tmp_path, source={"uri": str(folder), "id_column": "id", "limit": 5})
    ledger, host = open_ledger(tmp_path), FakeHost()
    for _ in range(2):
        run(settings, ledger, host)
        assert "a.jsonl.gz" in str(read_status(settings, ledger).unreadable)
    (folder / "a.jsonl.gz").unlink()
    run(settings, ledger, host)
    assert read_status(settings, ledger).unreadable is None


def test_a_table(tmp_path: Path) -> None:
    table = tmp_path / "table"
    append(table, rows(0, 3))
    append(table, rows(3, 6))
    [good, bad] = sorted(table.glob("*.parquet"))
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    settings = make_settings(tmp_path, source={"uri": str(table), "id_column": "id"})
    ledger, host = open_ledger(tmp_path), FakeHost()
    run(settings, ledger, host)
    assert bad.name in str(read_status(settings, ledger).unreadable)
    news = read_source_news(settings, ledger, None)
    assert news.new == [], "a sensor would plan it again and again"
    bad.write_bytes(whole)
    assert read_source_news(settings, ledger, news.cursor).new == [bad.name]
    bad.write_bytes(whole[: len(whole) // 2])
    run(settings, ledger, host)
    # Its next version waits, and nothing of it is looked at.
    commit(table, {"remove": {"path": good.name, "deletionTimestamp": 0, "dataChange": True}}, features=[])
    notes = plan_source(open_pipeline(settings, ledger, host.executor(settings))).notes
    assert any("waits" in note for note in notes)
    assert bad.name in str(read_status(settings, ledger).unreadable)


def test_one_that_is_damaged_beside_the_records_costs_these(tmp_path: Path) -> None:
    """The sensor sees by it when it is mended: the tar itself stays as it is."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.tar").write_bytes(tar_bytes([(f"{number}.jpg", b"x")]))
    (folder / "1.parquet").write_bytes(b"cut off")
    settings, ledger = (
        make_settings(tmp_path, source={"uri": str(folder), "format": "webdataset"}),
        open_ledger(tmp_path),
    )
    pipeline = open_pipeline(settings, ledger, FakeHost().executor(settings))
    assert plan_source(pipeline).records == 1
    told = str(read_status(settings, ledger).unreadable)
    assert "1.parquet: is no whole Parquet file" in told and "1.tar waits for it" in told
    assert read_source_news(settings, ledger, None).new == []
    pq.write_table(pa.table({"key": ["1"], "label": ["one"]}), folder / "1.parquet")
    assert read_source_news(settings, ledger, None).new == ["1.tar"]
    (folder / "1.parquet").unlink()
    assert read_source_news(settings, ledger, None).new == ["1.tar"]
    assert plan_source(pipeline).records == 2
    assert read_status(settings, ledger).unreadable is None


@pytest.mark.parametrize(
    "note", [b"", b"\xff", b"{", b"{}", b"null", b"[1]", b'[{"path": 1}]', b'[{"path": "a"}]']
)
def test_a_damaged_note_is_told_and_written_anew_by_the_next_plan(tmp_path: Path, note: bytes) -> None:
    folder = tmp_path / "in"
    (folder / "a.jsonl.gz").write_bytes(write_gzip(folder / "a.jsonl.gz", "a")[:-20])
    write_gzip(folder / "b.jsonl.gz", "b")
    settings = make_settings(tmp_path, source={"uri": str(folder)})
    ledger = open_ledger(tmp_path)
    pipeline = open_pipeline(settings, ledger, FakeHost().executor(settings))
    plan_source(pipeline)
    written = tmp_path / "out" / "plan" / "unreadable.json"
    written.write_bytes(note)
    with pytest.raises(LastingStorageError, match=r"unreadable\.json: is no list of source files"):
        read_status(settings, ledger)
    assert read_source_news(settings, ledger, None).new == ["a.jsonl.gz"], "a sensor asks for the plan"
    plan_source(pipeline)
    assert "a.jsonl.gz" in str(read_status(settings, ledger).unreadable)
    [file] = json.loads(written.read_bytes())
    for other in (
        {**file, "since": "version 9"},
        {name: file[name] for name in ("path", "version", "reason")},
    ):
        written.write_text(json.dumps([other]))
        assert "a.jsonl.gz" in str(read_status(settings, ledger).unreadable)


def test_a_page_of_the_listing_never_ends_at_a_name_that_no_cursor_can_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    write_gzip(folder / "a.jsonl.gz", "a")
    settings = make_settings(tmp_path, source={"uri": str(folder), "id_column": "id"})
    ledger = open_ledger(tmp_path)
    plan_source(open_pipeline(settings, ledger, FakeHost().executor(settings)))
    for name in (b"b\xe9", b"b\xea", b"c", b"d"):
        write_gzip(folder / os.fsdecode(name + b".jsonl.gz"), "b")
    monkeypatch.setattr("batch_assets.sharding.changes.FILES_PER_PAGE", 2)
    first = read_source_news(settings, ledger, None)
    assert (first.new, first.removed, first.cursor) == (["c.jsonl.gz"], [], "c.jsonl.gz")
    second = read_source_news(settings, ledger, first.cursor)
    assert (second.new, second.removed, second.cursor) == (["d.jsonl.gz"], [], None)
