"""Both storages keep the same promises: a local folder, and S3 by a real server on this machine."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import ConfigurationError, StorageError
from batch_assets.storage import Storage, VersionMismatch, join_uri, normalize_uri, open_storage
from batch_assets_tests.object_store import s3_server, use_s3
from batch_assets_tests.pauses import skipping

NAMES = ["a.txt", "a b/c d.txt", "50%/x%20y.txt", "ü/ß+1&2.txt", "a/deep/er.txt", "a-b.txt", "quote'\".txt"]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    return use_s3(endpoint, monkeypatch)


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return open_storage(str(tmp_path / "root"))
    request.getfixturevalue("s3")
    return open_storage("s3://bucket/some prefix/root")


def test_what_is_written_is_read(storage: Storage) -> None:
    for name in NAMES:
        storage.write(name, name.encode())
        assert storage.read(name) == name.encode()
        info = storage.info(name)
        assert info is not None
        assert (info.path, info.size) == (name, len(name.encode()))
    assert [info.path for info in storage.list()] == sorted(NAMES)
    assert {info.version for info in storage.list()} == {v.version for n in NAMES if (v := storage.info(n))}


def test_list_keeps_to_its_folder_and_goes_on_behind_a_path(storage: Storage) -> None:
    for name in ["data/a", "data/b/c", "data-old/a", "data.txt", "data/b.txt"]:
        storage.write(name, b"")
    assert [info.path for info in storage.list("data")] == ["data/a", "data/b.txt", "data/b/c"]
    everything = [info.path for info in storage.list()]
    assert everything == sorted(everything)
    for place, path in enumerate(everything):
        assert [info.path for info in storage.list(after=path)] == everything[place + 1 :]
    assert [info.path for info in storage.list("data", after="data/a")] == ["data/b.txt", "data/b/c"]
    assert list(storage.list("nowhere")) == []


def test_a_missing_file(storage: Storage) -> None:
    for act in (storage.read, storage.open_input, lambda path: list(storage.stream(path))):
        with pytest.raises(FileNotFoundError):
            act("missing/file")
    with pytest.raises(FileNotFoundError):
        storage.copy("missing", "target")
    assert storage.info("missing") is None
    assert storage.info("target") is None
    assert storage.read_versioned("missing") is None
    storage.delete(["missing", "missing/too"])


def test_create_happens_once(storage: Storage) -> None:
    assert storage.create("folder/marker", b"first")
    assert not storage.create("folder/marker", b"second")
    assert storage.read("folder/marker") == b"first"
    assert [info.path for info in storage.list()] == ["folder/marker"]


def test_replace_needs_the_version_that_was_read(storage: Storage) -> None:
    assert not storage.replace("marker", b"x", "any")
    storage.create("marker", b"one")
    found = storage.read_versioned("marker")
    assert found is not None
    assert storage.replace("marker", b"two", found[1])
    assert not storage.replace("marker", b"three", found[1])
    assert storage.read("marker") == b"two"


def test_one_of_many_creators_wins(storage: Storage) -> None:
    race(storage, lambda number: storage.create("marker", b"%d" % number))


def test_one_of_many_replacers_wins(storage: Storage) -> None:
    storage.create("marker", b"old")
    found = storage.read_versioned("marker")
    assert found is not None
    version = found[1]
    race(storage, lambda number: storage.replace("marker", b"%d" % number, version))


def race(storage: Storage, act: Callable[[int], bool]) -> None:
    won: list[int] = []
    gate = threading.Barrier(4)

    def run(number: int) -> None:
        gate.wait()
        if act(number):
            won.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [b"%d" % number for number in won] == [storage.read("marker")]


def test_stream_gives_the_bytes_asked_for(storage: Storage) -> None:
    data = os.urandom(20_000_000)
    storage.write("big", data)
    storage.write("empty", b"")
    info = storage.info("big")
    assert info is not None
    for start, end in [
        (0, None),
        (5, 7),
        (8_388_607, 8_388_609),
        (19_999_999, None),
        (3, 3),
        (0, 20_000_000),
    ]:
        assert b"".join(storage.stream("big", start, end)) == data[start:end]
        assert b"".join(storage.stream("big", start, end, info.version)) == data[start:end]
    assert max(map(len, storage.stream("big"))) <= 8 * 2**20
    assert list(storage.stream("empty")) == []


@pytest.mark.parametrize("end", [None, 3])
def test_stream_notices_another_version(storage: Storage, end: int | None) -> None:
    storage.write("file", b"before")
    info = storage.info("file")
    assert info is not None
    storage.write("file", b"after!!")
    with pytest.raises(VersionMismatch):
        list(storage.stream("file", 0, end, info.version))


def test_stream_notices_a_change_while_it_reads(storage: Storage) -> None:
    storage.write("file", b"a" * 9_000_000)
    info = storage.info("file")
    assert info is not None
    stream = storage.stream("file", 0, info.size, info.version)
    next(stream)
    if open_local(storage):
        with open(f"{storage.uri}/file", "r+b") as file:
            file.truncate(8_500_000)
    else:
        storage.write("file", b"b" * 9_000_000)
    with pytest.raises(VersionMismatch):
        list(stream)


def open_local(storage: Storage) -> bool:
    return storage.uri.startswith("/")


@pytest.mark.parametrize("size", [10, 25_000_000])
def test_an_output_is_seen_whole_or_not_at_all(storage: Storage, size: int) -> None:
    data = os.urandom(size)
    with storage.open_output("folder/out") as output:
        for start in range(0, size, 4_000_000):
            output.write(data[start : start + 4_000_000])
        assert output.tell() == size
        assert storage.info("folder/out") is None
    assert output.closed
    assert storage.read("folder/out") == data
    with pytest.raises(RuntimeError), storage.open_output("folder/aborted") as output:  # noqa: PT012
        output.write(data)
        raise RuntimeError
    aborted = storage.open_output("folder/aborted")
    aborted.write(data)
    aborted.abort()
    aborted.abort()
    assert [info.path for info in storage.list()] == ["folder/out"]


def test_parquet_is_written_and_read_in_place(storage: Storage) -> None:
    table = pa.table({"n": range(1_000_000), "text": ["x"] * 1_000_000})
    with storage.open_output("a b.parquet") as output, pq.ParquetWriter(output, table.schema) as writer:
        writer.write_table(table, row_group_size=100_000)
    with storage.open_input("a b.parquet") as file, pq.ParquetFile(file) as parquet:
        assert parquet.metadata.num_row_groups == 10
        assert parquet.read_row_group(7, columns=["n"]).column("n")[0].as_py() == 700_000

    def fail_halfway() -> None:
        with storage.open_output("b.parquet") as output, pq.ParquetWriter(output, table.schema) as writer:
            writer.write_table(table)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert storage.info("b.parquet") is None


def test_copy_and_delete(storage: Storage) -> None:
    storage.write("a b+c", b"data")
    storage.copy("a b+c", "folder/ü%20")
    storage.delete(["a b+c"])
    assert [(info.path, storage.read(info.path)) for info in storage.list()] == [("folder/ü%20", b"data")]


def test_create_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    storage = open_storage(str(tmp_path))
    race(storage, lambda number: storage.create("marker", b"%d" % number))
    assert [info.path for info in storage.list()] == ["marker"]


def test_a_missing_bucket_is_named(s3: Any) -> None:
    storage = open_storage("s3://no-such-bucket/root")
    acts: list[Callable[[], object]] = [
        lambda: list(storage.list()),
        lambda: storage.read("x"),
        lambda: storage.write("x", b""),
        lambda: storage.create("x", b""),
        lambda: storage.replace("x", b"", '"0"'),
    ]
    for act in acts:
        with pytest.raises(ConfigurationError, match=r"s3://no-such-bucket.*no such bucket"):
            act()


def test_a_server_that_is_not_there(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with skipping(lambda: None), pytest.raises(StorageError, match=r"s3://bucket/prefix/x.*AWS_ENDPOINT_URL"):
        open_storage("s3://bucket/prefix").read("x")


def test_no_credentials_at_all(s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ConfigurationError, match="no AWS credentials"):
        open_storage("s3://bucket/root")


def test_credentials_of_a_profile(s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id=a\naws_secret_access_key=b\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    storage = open_storage("s3://bucket/root")
    storage.write("x", b"y")
    assert storage.read("x") == b"y"


def test_folder_marks_are_no_files(s3: Any) -> None:
    for key in ("root/", "root/a.txt"):
        s3.put_object(Bucket="bucket", Key=key, Body=b"")
    assert [info.path for info in open_storage("s3://bucket/root/").list()] == ["a.txt"]


def test_keys_that_are_no_paths_are_named(s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="root//a.txt", Body=b"")
    with pytest.raises(StorageError, match="rename"):
        list(open_storage("s3://bucket/root").list())


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("/a/b/../c/", "/a/c"),
        ("file:///a%20b/c", "/a b/c"),
        ("FILE://localhost/a?b#c/", "/a?b#c"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://bucket/a b/c//", "s3://bucket/a b/c"),
    ],
)
def test_one_spelling(uri: str, normal: str) -> None:
    assert normalize_uri(uri) == normal
    assert normalize_uri(normal) == normal


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://host/a",
        "s3://",
        "s3:///a",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "file://data/out",
        "file://localhost",
        "/not\udcffutf-8",
    ],
)
def test_refused_uris(uri: str) -> None:
    with pytest.raises(ConfigurationError):
        normalize_uri(uri)


def test_join() -> None:
    assert join_uri("s3://bucket", "a/b") == "s3://bucket/a/b"
    assert join_uri("/root", "") == "/root"


READERS = ("read", "read_versioned", "stream", "open_input", "copy")


def read_by(storage: Storage, way: str, path: str) -> None:
    if way == "copy":
        storage.copy(path, "target")
    elif way == "stream":
        list(storage.stream(path, 0, 100))
    else:
        getattr(storage, way)(path)


@pytest.mark.parametrize("way", READERS)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, way: str) -> None:
    storage = open_storage(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "endless"):
        with pytest.raises(StorageError, match=f"{name}: is no regular file; remove"):
            read_by(storage, way, name)
    assert storage.info("target") is None
    storage.write("file", b"content")
    (tmp_path / "link").symlink_to("file")
    read_by(storage, way, "link")


def test_what_is_read_whole_has_a_largest_size(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write("file", b"12345")
    monkeypatch.setattr("batch_assets.storage.base.MOST_READ_WHOLE", 5)
    assert storage.read("file") == b"12345"
    monkeypatch.setattr("batch_assets.storage.base.MOST_READ_WHOLE", 4)
    for read in (storage.read, storage.read_versioned):
        with pytest.raises(StorageError, match="root/file: has 5 bytes, but is read whole, up to 4; restore"):
            read("file")
    assert b"".join(storage.stream("file")) == b"12345"
