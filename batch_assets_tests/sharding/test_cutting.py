"""For whatever source: every record in exactly one shard, limits kept, ranges read back to the same lines."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.errors import ConfigurationError
from batch_assets.sharding import cutting
from batch_assets_tests.sharding.planning import Planned, plan, write_lines

RECORDS = st.text("ab é\u2028", max_size=12).map(lambda text: b'{"text": "%s"}' % text.encode())
LINES = st.one_of(RECORDS, st.sampled_from([b"", b" \t", b"\r", b"nope", b'{"text": "' + b"x" * 90 + b'"}']))
FILES = st.dictionaries(
    st.sampled_from(["a.jsonl", "b.jsonl", "d/a.jsonl", "d/b.jsonl", "d/e/a.jsonl", "z.jsonl"]),
    st.tuples(st.lists(LINES, max_size=25), st.booleans(), st.booleans()),
    min_size=1,
)


def content(lines: list[bytes], newline_at_end: bool, byte_order_mark: bool) -> bytes:
    data = b"\n".join(lines) + (b"\n" if newline_at_end else b"")
    return (b"\xef\xbb\xbf" if byte_order_mark else b"") + data


def expected_rows(files: dict[str, tuple[list[bytes], bool, bool]]) -> list[tuple[str, int]]:
    return [(path, row) for path in sorted(files) for row, line in enumerate(files[path][0]) if line.strip()]


def check_limits(
    planned: Planned, records: int, size: int, min_records: int, *, by_folder: bool = False
) -> None:
    for index, shard in enumerate(planned.shards):
        assert 1 <= shard.records <= records
        assert shard.key == f"g0001-{index:05d}"
        folders = {folder(segment.path) if by_folder else "" for segment in shard.segments}
        assert len(folders) == 1
        if not min_records:  # evening out may move large records together
            assert shard.bytes <= size or shard.records == 1
        following = planned.shards[index + 1] if index + 1 < len(planned.shards) else None
        ends_folder = following is None or (by_folder and folder(following.segments[0].path) not in folders)
        if ends_folder and shard.records < min_records and index:
            before = planned.shards[index - 1]
            if not by_folder or folder(before.segments[-1].path) in folders:
                assert before.records + shard.records < 2 * min_records


def test_small_folders_share_a_shard_unless_the_merge_is_by_folder(tmp_path: Path) -> None:
    for number in range(40):
        write_lines(tmp_path / f"in/hour={number:02d}/part.jsonl", ['{"text": "a"}', '{"text": "b"}'])
    shared = plan(tmp_path / "in", tmp_path / "shared", min_records=30)
    assert [shard.records for shard in shared.shards] == [80]
    assert len(shared.shards[0].segments) == 40
    shared = plan(tmp_path / "in", tmp_path / "many", {"records": 50}, min_records=35)
    assert [shard.records for shard in shared.shards] == [40, 40]
    apart = plan(tmp_path / "in", tmp_path / "apart", min_records=30, merge_by="folder")
    assert [shard.records for shard in apart.shards] == [2] * 40


def test_what_to_change_where_there_are_too_many_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "MOST_SHARDS", 5)
    for number in range(6):
        write_lines(tmp_path / f"in/{number}/part.jsonl", ['{"text": "a"}'] * 4)
    for shards, merge_by, advice in (
        ({}, "folder", "merge_by: folder: shards of a folder each.*leave merge_by out"),
        ({"records": 4}, "folder", "raise shards.records"),
        ({"records": 2}, None, "shards.records: 2 and .*; raise shards.records"),
        ({"bytes": 30}, None, "; raise shards.bytes"),
    ):
        with pytest.raises(ConfigurationError, match=f"{advice}"):
            plan(tmp_path / "in", tmp_path / "root", shards, merge_by=merge_by)
    assert len(plan(tmp_path / "in", tmp_path / "root").shards) == 1


def folder(path: str) -> str:
    return path.rpartition("/")[0]


@settings(max_examples=120, deadline=None)
@given(
    FILES,
    st.integers(1, 12),
    st.sampled_from([40, 120, 10_000]),
    st.integers(0, 8),
    st.none() | st.integers(1, 40),
    st.booleans(),
)
def test_every_line_is_in_exactly_one_shard(
    files: dict[str, tuple[list[bytes], bool, bool]],
    records: int,
    size: int,
    min_records: int,
    limit: int | None,
    by_folder: bool,
) -> None:
    rows = expected_rows(files)[:limit]
    if not rows:
        return
    min_records = min(min_records, records)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        for path, parts in files.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(content(*parts))
        shards = {"records": records, "bytes": size, "max_record_bytes": 80}
        merge_by = "folder" if by_folder else None
        planned = plan(
            source, Path(folder) / "root", shards, min_records=min_records, limit=limit, merge_by=merge_by
        )
        assert planned.rows() == rows
        assert planned.summary.records == len(rows)
        check_limits(planned, records, size, min_records, by_folder=by_folder)
        if not by_folder and size == 10_000:
            assert len(planned.shards) == -(-len(rows) // records)  # none is left half empty
        again = {file.path: file for file in planned.summary.files}
        for path, file in again.items():
            assert file.records == sum(1 for found, _ in rows if found == path)
        # Without the limit, the next generation has the rest and nothing twice.
        if limit is not None:
            rest = plan(source, Path(folder) / "root", shards, min_records=min_records)
            assert rows + rest.rows() == planned.rows() + expected_rest(files, rows)


def expected_rest(
    files: dict[str, tuple[list[bytes], bool, bool]], rows: list[tuple[str, int]]
) -> list[tuple[str, int]]:
    taken = set(rows)
    return [row for row in expected_rows(files) if row not in taken]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=3),
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(0, 9),
)
def test_parquet_ranges(counts: list[int], group: int, records: int, min_records: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for index, count in enumerate(counts):
            texts = [f"{index} {row}" for row in range(count)]
            pq.write_table(pa.table({"text": texts}), f"{folder}/{index}.parquet", row_group_size=group)
        planned = plan(folder, f"{folder}/root", {"records": records}, min_records=min(min_records, records))
        expected = [(index, row) for index, count in enumerate(counts) for row in range(count)]
        assert planned.rows() == [(f"{index}.parquet", row) for index, row in expected]
        assert planned.texts() == [f"{index} {row}" for index, row in expected]
        check_limits(planned, records, 10**9, min(min_records, records))
