"""Walking over a tar: what Python's tarfile writes, and headers that would lead it astray."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_assets.errors import SourceError
from batch_assets.sources.tar_files import BlockReader, TarMember, tar_members
from batch_assets_tests.sharding.planning import plan
from batch_assets_tests.sources.tars import tar_bytes

WHOLE = tar_bytes([("a.jpg", b"x" * 1_000), ("b.jpg", b"y" * 1_000)])
SECOND = 1_536  # where the second header begins
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def members(data: bytes, read: Callable[[int, int], None] = lambda start, end: None) -> list[TarMember]:
    """What the walk finds; `read` is told of each range that it reads."""

    def fetch(start: int, end: int) -> bytes:
        read(start, end)
        return data[start:end]

    return list(tar_members(BlockReader(len(data), fetch, 512, None), len(data)))


def header(kind: bytes, size: int | bytes, name: bytes = b"a.jpg") -> bytes:
    """A header with its checksum; `size` as a number, or as the field's bytes."""
    field = b"%011o\0" % size if isinstance(size, int) else size.ljust(12, b"\0")
    block = bytearray(name.ljust(124, b"\0") + field + bytes(12) + b" " * 8 + kind + bytes(355))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def announced(kind: bytes, data: bytes) -> bytes:
    return header(kind, len(data)) + padded(data)


def record(keyword: str, value: str) -> bytes:
    """A record of PAX, preceded by its own length."""
    rest = f" {keyword}={value}\n".encode()
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


MEMBER = header(b"0", 5) + padded(b"image")


@pytest.mark.parametrize("format", FORMATS)
def test_finds_what_tarfile_finds(format: int) -> None:
    names = ["a.jpg", "deep/" * 18 + "b.jpg", "dir/", "link", "empty.txt", "ü.jpg", "\udcff.jpg"]
    if format != tarfile.USTAR_FORMAT:
        names += ["n" * 300 + ".jpg", "ü" * 200 + ".jpg"]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, pax_headers={"comment": "all"}) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.type = {"dir/": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}.get(name, tarfile.REGTYPE)
            info.size = number * 300 if info.isreg() and name != "empty.txt" else 0
            info.mtime = 1.5  # PAX says it in a header of its own
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    data = buffer.getvalue()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [TarMember(m.name, m.offset_data, m.size) for m in tar if m.isreg()]
    assert members(data) == expected


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (header(b"0", b"\xff" * 12) + bytes(512), r"header at byte 0 is damaged: its size .* no number of bytes"),
        (header(b"0", b"\xff" * 10 + b"\xfe\x00") + bytes(512), "header at byte 0 is damaged: its size"),
        (header(b"0", b"-0000001000") + bytes(512), "its size b'-0000001000"),
        (header(b"0", b"+1_0") + bytes(512), "its size"),
        (MEMBER + header(b"0", b"\xff" * 12), "header at byte 1,024 is damaged"),
        (header(b"L", b"\xff" * 10 + b"\xfe\x00") + MEMBER, "header at byte 0 is damaged: its size"),
        (announced(b"x", record("size", "-1024")) + MEMBER, "header at byte 0 is damaged: its size b'-1024'"),
        (announced(b"x", record("size", "9" * 25)) + MEMBER, "its size b'999"),
        (announced(b"x", record("size", "1" + "0" * 18)) + MEMBER, "unexpected end of data: 1,000,000,000,000,000,000"),
        (header(b"0", b"\x80" + b"\xff" * 11) + bytes(512), "unexpected end of data"),
        (header(b"g", 10**9) + MEMBER, "unexpected end of data: 1,000,000,000 bytes should follow byte 512"),
        (announced(b"x", b"0 path=a\n") + MEMBER, "header at byte 0 is damaged: its record at byte 0"),
        (announced(b"x", b"99 path=a\n") + MEMBER, "its record at byte 0"),
        (announced(b"x", b"9" * 600) + MEMBER, "its record at byte 0"),
        (announced(b"L", bytes(2**16 + 1)) + MEMBER, "announces a name or attributes of 65,537 bytes"),
        (announced(b"x", record("path", "a" * 2**16 + ".jpg")) + MEMBER, "announces a name of 65,540 bytes"),
        (announced(b"x", bytes(2**20 + 1)) + MEMBER, "announces a name or attributes of 1,048,577 bytes"),
        (announced(b"L", b"a.jpg\0"), "no member follows its name before byte 1,024"),
        (header(b"S", 0)[:482] + b"\1" + bytes(29), "is damaged|invalid header"),
    ],
)  # fmt: skip
def test_a_hostile_header_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "00000.tar").write_bytes(data)
    with pytest.raises(SourceError, match=r"00000\.tar: is no whole tar file.*" + says) as raised:
        plan(tmp_path / "00000.tar", tmp_path / "root", format="webdataset")
    assert "leave it out by source.exclude" in str(raised.value)
    assert not list(tmp_path.glob("root/spool/*"))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_headers_without_end_are_walked_once(kind: bytes) -> None:
    starts: list[int] = []
    data = announced(kind, record("comment", "c")) * 5_000 + MEMBER + bytes(1_024)
    found = members(data, lambda start, end: starts.append(start))
    assert [member.size for member in found] == [5]
    assert starts == sorted(set(starts))


def test_a_map_of_a_sparse_file_that_never_ends() -> None:
    sparse = bytearray(header(b"S", 0))
    sparse[482] = 1
    sparse[148:156] = b" " * 8
    sparse[148:156] = b"%06o\0 " % sum(sparse)
    further = bytes(504) + b"\1" + bytes(7)
    with pytest.raises(tarfile.ReadError, match="unexpected end of data in the sparse file at byte 0"):
        members(bytes(sparse) + further * 1_000)
    whole = bytes(sparse) + further * 10 + bytes(512) + MEMBER + bytes(1_024)
    assert members(whole) == [TarMember("a.jpg", 12 * 512 + 512, 5)]


def test_a_large_attribute_of_all_members_is_not_read() -> None:
    read: list[int] = []
    data = announced(b"g", bytes(4 * 2**20)) + MEMBER + bytes(1_024)
    assert len(members(data, lambda start, end: read.append(end - start))) == 1
    # Only the end marks are read beyond the headers.
    assert sum(read) < 8_192


def test_a_size_beside_a_link_is_no_content() -> None:
    data = announced(b"x", record("size", "600")) + header(b"2", 0) + MEMBER + bytes(1_024)
    assert [member.size for member in members(data)] == [5]
