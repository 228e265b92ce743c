"""A file that cannot be read costs itself, and is taken in when it is mended."""

import errno
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.control.housekeeping import read_source_news
from batch_assets.control.pipeline import open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.status import read_status
from batch_assets.errors import LastingStorageError, SourceError, StorageError
from batch_assets.sharding.plan_files import read_summary
from batch_assets.storage import open_storage
from batch_assets.storage.local import LocalStorage
from batch_assets_tests.command import published
from batch_assets_tests.control.builders import make_settings, open_ledger, run
from batch_assets_tests.fakes import FakeHost
from batch_assets_tests.sources.tables.delta import append, commit, rows
from batch_assets_tests.sources.tars import tar_bytes

LINE = b'{"id": "%s", "text": "hello"}\n'


def write_gzip(file: Path, *ids: str) -> bytes:
    whole = gzip.compress(b"".join(LINE % name.encode() for name in ids))
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(whole)
    return whole


def write_parquet(file: Path, *ids: str) -> bytes:
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": ids, "text": ["hello"] * len(ids)}), file)
    return file.read_bytes()


def write_csv(file: Path, *ids: str) -> None:
    file.write_text("".join(["id,text\n", *(f"{name},hello\n" for name in ids)]))


@pytest.mark.parametrize(
    ("suffix", "write", "damage"),
    [
        ("jsonl.gz", write_gzip, lambda whole: whole[:-20]),
        ("parquet", write_parquet, lambda _: b""),
        ("parquet", write_parquet, lambda whole: whole[: len(whole) // 2]),
        ("csv", write_csv, lambda _: b"\xff\xfe,\xff\n1,2\n"),
    ],
)
def test_it_is_named_and_the_others_are_embedded_until_it_is_mended(
    tmp_path: Path, suffix: str, write: Callable[..., object], damage: Callable[[bytes], bytes]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write(folder / f"{name}.{suffix}", name)
    bad = folder / f"b.{suffix}"
    whole = bad.read_bytes()
    bad.write_bytes(damage(whole))
    settings = make_settings(tmp_path, source={"uri": str(folder), "id_column": "id"})
    ledger, host = open_ledger(tmp_path), FakeHost()
    pipeline = open_pipeline(settings, ledger, host.executor(settings))
    notes = plan_source(pipeline).notes
    assert any("LEFT OUT: 1 files cannot be read" in note and f"b.{suffix}" in note for note in notes), notes
    run(settings, ledger, host)
    assert published(tmp_path / "out")["record_id"].to_list() == ["a", "c"]
    status = read_status(settings, ledger)
    assert status.unreadable is not None and f"b.{suffix}" in status.unreadable
    assert status.records == {"planned": 2, "embedded": 2, "rejected": 0, "failed": 0}
    assert read_source_news(settings, ledger, None).new == [], "a sensor would plan it again and again"

    bad.write_bytes(whole)
    assert read_source_news(settings, ledger, None).new == [bad.name]
    run(settings, ledger, host)
    assert sorted(published(tmp_path / "out")["record_id"].to_list()) == ["a", "b", "c"]
    assert read_status(settings, ledger).unreadable is None


@pytest.mark.parametrize("group", [0, 1])
def test_one_that_can_be_read_only_half_leaves_no_record_and_no_column(tmp_path: Path, group: int) -> None:
    """Its ids lie in row groups, of which one is damaged: found only when its columns are known, or some rows."""
    folder = tmp_path / "in"
    write_parquet(folder / "a.parquet", "a")
    write_parquet(folder / "c.parquet", "c")
    table = pa.table({"id": ["b1", "b2"], "text": ["hello"] * 2, "own": [1, 2]})
    pq.write_table(table, folder / "b.parquet", row_group_size=1, compression="zstd", use_dictionary=False)
    data = bytearray((folder / "b.parquet").read_bytes())
    column = pq.ParquetFile(folder / "b.parquet").metadata.row_group(group).column(0)
    first, size = column.data_page_offset, column.total_compressed_size
    data[first : first + size] = b"\xff" * size
    (folder / "b.parquet").write_bytes(data)
    settings = make_settings(tmp_path, source={"uri": str(folder), "id_column": "id", "ids": "unique"})
    ledger, host = open_ledger(tmp_path), FakeHost()
    run(settings, ledger, host)
    assert published(tmp_path / "out")["record_id"].to_list() == ["a", "c"]
    assert "b.parquet" in str(read_status(settings, ledger).unreadable)
    assert read_summary(open_storage(settings.output.root), 1).columns == {"id": "string", "text": "string"}


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


def test_a_damaged_table_of_images_ends_the_plan(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "own").mkdir(parents=True)
    for name in ("a", "own/b"):
        (folder / f"{name}.jpg").write_bytes(b"x")
    (folder / "own" / "metadata.csv").write_bytes(b"\xff\xfe,\xff\n1,2\n")
    settings = make_settings(tmp_path, source={"uri": str(folder), "format": "imagefolder"})
    pipeline = open_pipeline(settings, open_ledger(tmp_path), FakeHost().executor(settings))
    with pytest.raises(SourceError, match=r"metadata\.csv: the first row must name the columns"):
        plan_source(pipeline)
    (folder / "own" / "metadata.csv").write_text("file_name,label\nb.jpg,two\n")
    assert plan_source(pipeline).records == 2


def test_the_others_being_empty_is_not_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "a.jsonl.gz").write_bytes(write_gzip(folder / "a.jsonl.gz", "a")[:-20])
    write_gzip(folder / "b.jsonl.gz")
    settings = make_settings(tmp_path, source={"uri": str(folder)})
    with pytest.raises(SourceError, match=r"a\.jsonl\.gz: is no whole gzip file"):
        plan_source(open_pipeline(settings, open_ledger(tmp_path), FakeHost().executor(settings)))


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


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_gzip(folder / "a.jsonl.gz", "a")
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("foreign")
    settings = make_settings(tmp_path, source={"uri": str(folder), "id_column": "id"})
    ledger, host = open_ledger(tmp_path), FakeHost()
    pipeline = open_pipeline(settings, ledger, host.executor(settings))
    notes = plan_source(pipeline).notes
    assert any("1 files whose name is no UTF-8, such as" in note for note in notes), notes
    assert read_status(settings, ledger).unreadable is None, "it would not have been read anyway"
    write_gzip(folder / os.fsdecode(b"caf\xe9.jsonl.gz"), "b")
    run(settings, ledger, host)
    assert published(tmp_path / "out")["record_id"].to_list() == ["a"]
    assert "no UTF-8" in str(read_status(settings, ledger).unreadable)
    assert read_source_news(settings, ledger, None).new == []


def test_where_none_can_be_read_nothing_is_planned(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a", "b"):
        (folder / f"{name}.jsonl.gz").write_bytes(write_gzip(folder / f"{name}.jsonl.gz", name)[:-20])
    settings, host = make_settings(tmp_path, source={"uri": str(folder)}), FakeHost()
    pipeline = open_pipeline(settings, open_ledger(tmp_path), host.executor(settings))
    with pytest.raises(SourceError, match=r"2 files cannot be read.*a\.jsonl\.gz.*b\.jsonl\.gz"):
        plan_source(pipeline)
    assert not (tmp_path / "out").exists()


def unreadable_descriptor(storage: LocalStorage, path: str) -> pa.NativeFile:
    """A file that opens, and of which the kernel then refuses every read."""
    file = pa.OSFile(f"{storage.uri}/{path}", "rb")
    if path == "b.parquet":
        write_only = os.open(os.devnull, os.O_WRONLY)
        os.dup2(write_only, file.fileno())
        os.close(write_only)
    return file


def no_memory(storage: LocalStorage, path: str) -> pa.NativeFile:
    if path == "b.parquet":
        raise pa.ArrowMemoryError("malloc of size 4096 failed")
    return pa.OSFile(f"{storage.uri}/{path}", "rb")


@pytest.mark.parametrize(
    ("opened", "reason"),
    [
        (unreadable_descriptor, "Bad file descriptor; check the disk"),
        (no_memory, "malloc of size 4096 failed; let"),
    ],
)
def test_a_fault_of_this_machine_is_no_bad_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Callable[..., pa.NativeFile], reason: str
) -> None:
    folder = tmp_path / "in"
    write_parquet(folder / "a.parquet", "a")
    write_parquet(folder / "b.parquet", "b")
    settings, host = make_settings(tmp_path, source={"uri": str(folder)}), FakeHost()
    pipeline = open_pipeline(settings, open_ledger(tmp_path), host.executor(settings))
    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "open_input", opened)
        with pytest.raises(StorageError, match=rf"b\.parquet: {reason}"):
            plan_source(pipeline)
    assert plan_source(pipeline).records == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (OSError(errno.EIO, "read"), "Input/output error; check the disk"),
        (pa.ArrowMemoryError("malloc of size 4096 failed"), "malloc of size 4096 failed; let"),
    ],
)
def test_nor_is_it_where_a_file_is_decompressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, reason: str
) -> None:
    folder = tmp_path / "in"
    write_gzip(folder / "a.jsonl.gz", "a")

    class Refusing:
        """A codec whose reading comes to nothing."""

        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> "Refusing":
            return self

        def __exit__(self, *_: object) -> None: ...

        def read(self, size: int) -> bytes:
            raise fault

    settings, host = make_settings(tmp_path, source={"uri": str(folder)}), FakeHost()
    pipeline = open_pipeline(settings, open_ledger(tmp_path), host.executor(settings))

    monkeypatch.setattr(pa, "CompressedInputStream", Refusing)
    with pytest.raises(StorageError, match=rf"a\.jsonl\.gz: {reason}"):
        plan_source(pipeline)
