"""Merges in groups: every record in its group, in order, once; checked, verified and searched like one dataset."""

import datetime
import decimal
import itertools
import os
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_assets.embeddings.schema import EMBED
from batch_assets.errors import ConfigurationError
from batch_assets.merge import splitting
from batch_assets.merge.base import LeftOut, Manifest
from batch_assets.merge.checks import check_accounting, check_vectors
from batch_assets.merge.groups import check_merge_by, group_folders
from batch_assets.merge.parquet import Grouping, merge
from batch_assets.merge.publishing import open_current, publish
from batch_assets.merge.search import search
from batch_assets.merge.verification import verify
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import unit_vectors, write_shard
from batch_assets_tests.merge.test_verification import plan

FINGERPRINT = "f" * 16
TOPIC = Grouping("topic")
Shards = list[tuple[str, int]]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "root"))


def write_topics(storage: Storage, topics: list[list[Any]], kind: str = "string") -> Shards:
    """A planned and committed shard for each list, a record for each topic, all embedded."""
    planned = plan(storage, 1, [len(some) for some in topics])
    for number, (shard, some) in enumerate(zip(planned, topics, strict=True)):
        columns, values = {"topic": kind}, {"topic": some}
        write_shard(storage, shard.key, "e" * len(some), base=100 * number, columns=columns, values=values)
    return [(shard.key, shard.records) for shard in planned]


def publish_groups(storage: Storage, shards: Shards, grouping: Grouping = TOPIC) -> Manifest:
    result = merge(storage, shards, FINGERPRINT, grouping=grouping)
    assert check_accounting(storage, result.manifest).passed
    assert check_vectors(storage, result.manifest).passed
    assert publish(storage, result.manifest.version, result.expected_current)
    return result.manifest


def rows_by_group(storage: Storage, manifest: Manifest) -> dict[str | None, pl.DataFrame]:
    """Group → its rows, read by way of the manifest."""
    return {
        group.name: pl.concat(
            pl.read_parquet(f"{storage.uri}/{manifest.path(part)}")
            for part in manifest.parts
            if part.group == group.name
        )
        for group in manifest.groups
    }


TOPICS = st.lists(
    st.lists(st.sampled_from(["a", "b", "B", "c/d", "", None, "é" * 60]), max_size=6), min_size=1, max_size=4
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(topics=TOPICS, at_once=st.integers(1, 3), part_bytes=st.sampled_from([1, 2**30]))
def test_the_groups_are_all_rows_in_order_each_once(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    topics: list[list[str | None]],
    at_once: int,
    part_bytes: int,
) -> None:
    monkeypatch.setattr(splitting, "GROUPS_AT_ONCE", at_once)
    monkeypatch.setattr(splitting, "PART_BYTES", part_bytes)
    storage = open_storage(str(tmp_path_factory.mktemp("root")))
    manifest = publish_groups(storage, write_topics(storage, topics))
    expected: dict[str | None, list[int]] = {}
    for number, some in enumerate(topics):
        for place, topic in enumerate(some):
            expected.setdefault(topic, []).append(100 * number + place)
    found = rows_by_group(storage, manifest)
    assert {name: rows["source_row"].to_list() for name, rows in found.items()} == expected
    assert all(set(rows["topic"].to_list()) == {name} for name, rows in found.items())
    assert {group.name: group.rows for group in manifest.groups} == {
        name: len(rows) for name, rows in expected.items()
    }
    report = verify(storage)
    assert (report.problems, report.accounting) == ([], manifest.accounting)


def test_a_grouped_version_is_like_any_other(storage: Storage) -> None:
    planned = plan(storage, 1, [5, 3, 4])
    for number, (shard, kinds) in enumerate(zip(planned, ["eerfe", "rrr", "eeee"], strict=True)):
        valid = len(kinds.replace("r", ""))
        columns, values = {"topic": "string"}, {"topic": (["news", "sport"] * valid)[:valid]}
        write_shard(storage, shard.key, kinds, base=100 * number, columns=columns, values=values)
    shards = [(shard.key, shard.records) for shard in planned]
    result = merge(storage, shards, FINGERPRINT, grouping=TOPIC, left_out=LeftOut(2, 9))
    assert publish(storage, result.manifest.version, None)
    manifest = result.manifest
    assert open_current(storage) == manifest
    folder = Path(storage.uri) / "merged" / manifest.version
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == {
        "failures.parquet", "manifest.json", "metadata.json",
        "data/news/part-00000.parquet", "data/sport/part-00000.parquet",
    }  # fmt: skip
    written = orjson.loads((folder / "manifest.json").read_bytes())
    assert written["groups"] == [
        {"name": "news", "folder": "data/news", "rows": 3},
        {"name": "sport", "folder": "data/sport", "rows": 4},
    ]
    assert [part["group"] for part in written["parts"]] == ["news", "sport"]
    assert written["left_out"] == {"shards": 2, "records": 9}
    told = orjson.loads((folder / "metadata.json").read_bytes())
    assert (told["merge_by"], told["groups"], told["num_samples"], told["left_out"]["shards"]) == (
        "topic",
        2,
        7,
        2,
    )
    assert manifest.accounting.line() == "accounting: planned=12 embedded=7 rejected=4 failed=1"
    assert check_accounting(storage, manifest).message == manifest.accounting.line()
    assert [shard.shard for shard in manifest.merged_shards] == [key for key, _ in shards]
    hits = search(storage, unit_vectors([202])[0], 2)
    assert (hits[0].columns["source_row"], hits[0].columns["topic"]) == (202, "news")
    assert merge(storage, shards, FINGERPRINT, grouping=TOPIC, left_out=LeftOut(2, 9)).reused
    # The same shards in one dataset, or with nothing left out, are another version.
    assert not merge(storage, shards, FINGERPRINT).reused
    assert not merge(storage, shards, FINGERPRINT, grouping=TOPIC).reused


def test_by_folder_parts_are_the_shards_own_bytes(storage: Storage) -> None:
    folders = {"g0001-00000": "", "g0001-00001": "a/b", "g0001-00002": "a", "g0002-00000": "a/b"}
    for number, (key, folder) in enumerate(folders.items()):
        write_shard(storage, key, "eer", base=100 * number, file=f"{folder}/x.jsonl".lstrip("/"))
    manifest = publish_groups(storage, [(key, 3) for key in folders], Grouping("folder", folders))
    assert [(group.name, group.folder, group.rows) for group in manifest.groups] == [
        ("", "data/empty_", 2), ("a/b", "data/a_2Fb", 4), ("a", "data/a", 2),
    ]  # fmt: skip
    assert [(part.uri, part.group) for part in manifest.parts] == [
        ("data/empty_/part-00000.parquet", ""), ("data/a_2Fb/part-00000.parquet", "a/b"),
        ("data/a/part-00000.parquet", "a"), ("data/a_2Fb/part-00001.parquet", "a/b"),
    ]  # fmt: skip
    assert rows_by_group(storage, manifest)["a/b"]["source_row"].to_list() == [100, 101, 300, 301]
    for part in manifest.parts:
        assert storage.read(manifest.path(part)) == storage.read(f"shards/{part.shard}/embeddings-1.parquet")


@pytest.mark.parametrize(
    ("kind", "values", "names"),
    [("int64", [7, -1, None], ["7", "-1", None]), ("bool", [True, False], ["true", "false"])],
)
def test_integers_booleans_and_null_make_groups(
    storage: Storage, kind: str, values: list[Any], names: list[str | None]
) -> None:
    manifest = publish_groups(storage, write_topics(storage, [values], kind))
    assert [group.name for group in manifest.groups] == names


def test_dates_make_groups_by_their_text(storage: Storage) -> None:
    days = [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)]
    manifest = publish_groups(storage, write_topics(storage, [days, [None, days[0]]], "date32"))
    frames = rows_by_group(storage, manifest)
    assert {name: frame["topic"].to_list() for name, frame in frames.items()} == {
        "2024-01-01": [days[0]] * 2,
        "2024-01-02": [days[1]],
        None: [None],
    }
    assert verify(storage).ok


def test_groups_of_shards_whose_types_differ(storage: Storage) -> None:
    planned = plan(storage, 1, [2, 2])
    for shard, kind, values in zip(planned, ("int8", "int64"), ([1, 2], [2, 300]), strict=True):
        write_shard(storage, shard.key, "ee", columns={"topic": kind}, values={"topic": values})
    manifest = publish_groups(storage, [(shard.key, shard.records) for shard in planned])
    assert {name: len(frame) for name, frame in rows_by_group(storage, manifest).items()} == {
        "1": 1,
        "2": 2,
        "300": 1,
    }


def test_a_column_that_came_later_is_null_before(storage: Storage) -> None:
    shards = write_topics(storage, [["a"], ["b"]])
    write_shard(storage, "g0001-00000", "e", fence=2)
    assert [group.name for group in publish_groups(storage, shards).groups] == [None, "b"]


def test_too_many_groups_are_refused_before_anything_is_written(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch_assets.merge.groups.MOST_GROUPS", 3)
    shards = write_topics(storage, [["a", "b"], ["c", "d"], ["e"]])
    with pytest.raises(
        ConfigurationError, match=r"'topic' has 4 values in the first 2 of 3 shards.*at most 3"
    ):
        merge(storage, shards, FINGERPRINT, grouping=TOPIC)
    folders = {key: str(number) for number, (key, _) in enumerate(shards)} | {"g0001-00002": "1"}
    monkeypatch.setattr("batch_assets.merge.groups.MOST_GROUPS", 1)
    with pytest.raises(ConfigurationError, match="the source has 2 folders, and a merge makes at most 1"):
        merge(storage, shards, FINGERPRINT, grouping=Grouping("folder", folders))
    assert list(storage.list("merged")) == []


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("topc", r"no output column 'topc' \(there are record_id, .*topic"),
        ("score", "'score' holds double"),
        ("tags", "'tags' holds values of mixed or nested types"),
    ],
)
def test_what_makes_no_groups_is_known_from_the_plan(by: str, message: str) -> None:
    columns = {"topic": "string", "score": "float64", "tags": "json"}
    with pytest.raises(ConfigurationError, match=message):
        check_merge_by(by, columns, EMBED)
    for good in (None, "folder", "topic", "source_file", "token_count"):
        check_merge_by(good, columns, EMBED)


def test_folders_are_safe_and_unlike_each_other_on_every_file_system() -> None:
    names = [
        None,
        "",
        "null",
        "_null",
        "é",
        "xé",
        "x_é",
        "empty",
        "A",
        "a",
        "..",
        "manifest.json",
        "a/b",
        "a_2Fb",
        "é" * 90,
        "é" * 91,
        " ",
        "%",
    ]
    folders = group_folders(names)
    assert len({folder.casefold() for folder in folders.values()}) == len(names)
    for folder in folders.values():
        assert folder[0] not in "_.", "readers of datasets pass over such a folder"
        assert folder.replace("_", "").replace("-", "").isalnum()
        assert len(folder) < 128
    assert folders == group_folders(reversed(names))


def test_verify_finds_a_row_in_a_wrong_group_and_one_that_is_there_twice(storage: Storage) -> None:
    manifest = publish_groups(storage, write_topics(storage, [["a", "b", "a"]]))
    folder = Path(storage.uri) / "merged" / manifest.version
    parts = [folder / part.uri for part in manifest.parts]
    whole = [part.read_bytes() for part in parts]
    by_hand = orjson.loads((folder / "manifest.json").read_bytes())

    def sign(*frames: pl.DataFrame) -> None:
        """Put frames in the parts' place, with digests that fit."""
        import hashlib

        import pyarrow.parquet as pq

        for place, (path, frame) in enumerate(zip(parts, frames, strict=True)):
            schema = pq.read_schema(path)
            pq.write_table(frame.to_arrow().cast(schema), path)
            data = path.read_bytes()
            by_hand["parts"][place] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        (folder / "manifest.json").write_bytes(orjson.dumps(by_hand))

    a, b = (pl.read_parquet(data) for data in whole)
    twice = pl.concat([a.head(1), a.head(1)])
    sign(twice, b)
    [problem] = verify(storage).problems
    assert "do not hold each record of its shards once" in problem
    sign(pl.concat([a.head(1), b]), a.tail(1))
    [problem] = verify(storage).problems
    assert "has rows of group 'b', it is of 'a'" in problem


def test_a_merge_that_fails_half_way_leaves_nothing_that_counts(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write_topics(storage, [["a", "b"], ["c", "b"]])
    monkeypatch.setattr(splitting, "GROUPS_AT_ONCE", 2)
    opened = itertools.count()

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(opened) == 2:
            raise OSError(28, os.strerror(28))
        return writer(*arguments, **options)

    writer = splitting.GroupedWriter
    monkeypatch.setattr(splitting, "GroupedWriter", failing)
    with pytest.raises(OSError, match="No space left"):
        merge(storage, shards, FINGERPRINT, grouping=TOPIC)
    assert open_current(storage) is None
    assert not any("manifest.json" in info.path for info in storage.list("merged"))
    manifest = publish_groups(storage, shards)
    assert manifest.version.startswith("v000002")
    assert {info.path.split("/")[1] for info in storage.list("merged")} == {"CURRENT", manifest.version}


@pytest.mark.parametrize(
    ("kinds", "values", "names"),
    [
        (
            ("timestamp[ms]", "timestamp[us]"),
            [datetime.datetime(2024, 1, 1)] * 2,
            ["2024-01-01T00:00:00.000000"],
        ),
        (
            ("decimal128(3, 1)", "decimal128(4, 2)"),
            [decimal.Decimal("1.5"), decimal.Decimal("1.50")],
            ["1.50"],
        ),
        (("date32", "string"), [datetime.date(2024, 1, 1), "2024-01-01"], ["2024-01-01"]),
    ],
)
def test_one_value_of_two_types_is_one_group(
    storage: Storage, kinds: tuple[str, str], values: list[Any], names: list[str]
) -> None:
    planned = plan(storage, 1, [1, 1])
    for base, (shard, kind, value) in enumerate(zip(planned, kinds, values, strict=True)):
        columns, stored = {"topic": kind}, {"topic": [value]}
        write_shard(storage, shard.key, "e", base=100 * base, columns=columns, values=stored)
    manifest = publish_groups(storage, [(shard.key, shard.records) for shard in planned])
    assert [(group.name, group.rows) for group in manifest.groups] == [(name, 2) for name in names]
    assert verify(storage).ok
