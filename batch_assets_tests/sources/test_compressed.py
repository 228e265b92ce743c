"""Compressed files: several members make one file, a damaged one is named and nothing of it is kept."""

import gzip
from pathlib import Path

import pytest
import zstandard

from batch_assets.errors import SourceError
from batch_assets_tests.sharding.planning import plan

LINES = [b'{"text": "number %d"}\n' % number for number in range(20_000)]
HALVES = [b"".join(LINES[:9_000]), b"".join(LINES[9_000:])]
PACK = {".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.compress}


@pytest.mark.parametrize("kind", PACK)
def test_members_follow_each_other(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"a{kind}").write_bytes(b"".join(PACK[kind](half) for half in HALVES))
    planned = plan(tmp_path, tmp_path / "out", {"records": 7_000, "bytes": "1GB"}, min_records=6_500)
    assert [shard.records for shard in planned.shards] == [7_000, 6_500, 6_500]
    assert planned.texts() == [f"number {number}" for number in range(20_000)]
    assert planned.rows() == [(f"a{kind}", row) for row in range(20_000)]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("damage", ["cut", "flipped", "no such format", "rubbish behind"])
def test_a_damaged_file_stops_planning_and_leaves_nothing(tmp_path: Path, kind: str, damage: str) -> None:
    whole = PACK[kind](HALVES[0])
    middle = len(whole) // 2
    data = {
        "cut": whole[:-50],
        "flipped": whole[:middle]
        + bytes(byte ^ 0xFF for byte in whole[middle : middle + 50])
        + whole[middle + 50 :],
        "no such format": b"plain text\n" * 10,
        "rubbish behind": whole + b"rubbish",
    }[damage]
    (tmp_path / f"a{kind}").write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.jsonl.*leave it out by source.exclude"):
        plan(tmp_path, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_an_empty_member_is_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(LINES[0]))
    assert plan(tmp_path, tmp_path / "out").texts() == ["number 0"]


def test_a_spool_is_made_once_and_serves_when_the_file_has_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(HALVES[0]))
    planned = plan(path, tmp_path / "out")
    (spool,) = (tmp_path / "out" / "spool").iterdir()
    made = spool.stat().st_mtime_ns
    plan(path, tmp_path / "out")
    assert spool.stat().st_mtime_ns == made
    path.unlink()
    assert len(planned.texts()) == 9_000
    spool.unlink()
    with pytest.raises(SourceError, match="normalized copy"):
        planned.texts()


def test_a_limit_spools_no_more_than_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(HALVES[0]))
    first = plan(path, tmp_path / "out", limit=10)
    assert not first.summary.files[0].complete
    second = plan(path, tmp_path / "out", limit=25)
    assert (first.rows(), second.rows()) == (
        [("a.jsonl.gz", row) for row in range(10)],
        [("a.jsonl.gz", row) for row in range(10, 25)],
    )
    exact = plan(path, tmp_path / "other", limit=9_000)
    assert exact.summary.files[0].complete


def test_a_window_that_takes_too_much_memory_is_not_called_damage(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=28)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "a.jsonl.zst").write_bytes(packer.compress(HALVES[0]) + packer.flush())
    with pytest.raises(SourceError, match=r"a\.jsonl\.zst: needs more than 128 MiB .*; compress it anew"):
        plan(tmp_path, tmp_path / "out")
