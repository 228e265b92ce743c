"""A file that cannot be read costs itself, and is taken in when it is mended."""

import errno
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
from batch_assets.errors import SourceError, StorageError
from batch_assets.sharding.plan_files import read_summary
from batch_assets.storage import open_storage
from batch_assets.storage.local import LocalStorage
from batch_assets_tests.command import published
from batch_assets_tests.control.builders import make_settings, open_ledger, run, write_gzip
from batch_assets_tests.fakes import FakeHost


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


def test_a_link_that_leads_to_nothing_is_named_until_it_leads_somewhere(tmp_path: Path) -> None:
    """As in a cache of which files were removed, or where a disk is not mounted."""
    folder = tmp_path / "in"
    write_gzip(folder / "a.jsonl.gz", "a")
    (folder / "b.jsonl.gz").symlink_to(tmp_path / "elsewhere.jsonl.gz")
    settings = make_settings(tmp_path, source={"uri": str(folder), "id_column": "id"})
    ledger, host = open_ledger(tmp_path), FakeHost()
    run(settings, ledger, host)
    told = read_status(settings, ledger).unreadable
    assert (
        told is not None
        and f"b.jsonl.gz: is a link to {tmp_path}/elsewhere.jsonl.gz, where nothing is" in told
    )
    news = read_source_news(settings, ledger, None)
    assert news.new == []
    write_gzip(tmp_path / "elsewhere.jsonl.gz", "b")
    assert read_source_news(settings, ledger, news.cursor).new == ["b.jsonl.gz"]
    run(settings, ledger, host)
    assert read_status(settings, ledger).unreadable is None
    assert published(tmp_path / "out")["record_id"].to_list() == ["a", "b"]
