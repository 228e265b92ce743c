"""`merge_when`: what may be merged, what is left out, and when a merge is asked for: once, and once more at the end."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from batch_assets.control.collection import collect_shards
from batch_assets.control.merge_time import last_time, merge_due
from batch_assets.control.merging import merge_shards, publish_merge
from batch_assets.control.pipeline import Pipeline, open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.errors import ConfigurationError, NotReady
from batch_assets.ledger.ledger import Ledger
from batch_assets.merge.base import LeftOut, Manifest
from batch_assets.merge.verification import verify
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.control.builders import PER_SHARD, make_settings, write_input
from batch_assets_tests.fakes import FakeHost

SIX = datetime.datetime(2026, 11, 21, 6, tzinfo=datetime.UTC)


class Site:
    """A planned pipeline of four shards, whose clock stands still unless it is moved."""

    def __init__(self, folder: Path, **fields: Any) -> None:
        write_input(folder, 4)
        self.clock = SIX.timestamp() - 3_600
        self.ledger = Ledger.open(f"sqlite:///{folder}/ledger.db", clock=lambda: self.clock)
        self.settings = make_settings(folder, **fields)
        self.keys = plan_source(self.open()).all_keys

    def open(self) -> Pipeline:
        return open_pipeline(self.settings, self.ledger, FakeHost().executor(self.settings))

    def collect(self, *keys: str) -> None:
        pipeline = self.open()
        list(prepare_shards(pipeline, keys))
        queue_shards(pipeline, keys)
        list(collect_shards(pipeline, keys))

    def merge(self) -> Manifest:
        pipeline = self.open()
        return publish_merge(pipeline, merge_shards(pipeline))

    def due(self) -> str | None:
        return merge_due(self.settings, self.ledger)


def merged(manifest: Manifest) -> Sequence[str]:
    return [shard.shard for shard in manifest.merged_shards]


def test_all_and_its_older_spelling_name_what_is_missing(tmp_path: Path) -> None:
    for when in ("all", "complete"):
        site = Site(tmp_path / when, merge_when=when)
        site.collect(*site.keys[:3])
        with pytest.raises(
            NotReady, match=r"1 of 4 shards of texts are missing: g0001-00003 \(planned\); .*any"
        ):
            site.merge()
        assert site.due() is None


def test_a_fraction_allows_a_merge_from_then_on_and_tells_what_is_left_out(tmp_path: Path) -> None:
    site = Site(tmp_path, merge_when={"fraction": 0.75})
    site.collect(*site.keys[:2])
    with pytest.raises(NotReady, match=r"10 of 20 records \(50\.00%\) are in collected.*asks for 75\.00%"):
        site.merge()
    assert site.due() is None
    site.collect(site.keys[2])
    asked = site.due()
    assert asked is not None
    site.ledger.clear_stop("texts")
    assert site.due() == asked  # while it is under way, the same merge
    manifest = site.merge()
    assert merged(manifest) == site.keys[:3]
    assert manifest.left_out == LeftOut(1, PER_SHARD)
    told = orjson.loads((tmp_path / f"out/merged/{manifest.version}/metadata.json").read_bytes())
    assert told["left_out"] == {"shards": 1, "records": PER_SHARD}
    assert site.due() is None
    assert not verify(site.settings.output.root).problems
    site.collect(site.keys[3])
    last = site.due()
    assert last not in (None, asked)
    assert site.merge().left_out == LeftOut()
    assert site.due() is None


def test_further_shards_ask_for_no_further_merge_and_new_files_only_when_they_count(tmp_path: Path) -> None:
    site = Site(tmp_path, merge_when={"fraction": 0.5})
    site.collect(*site.keys[:2])
    first = site.due()
    site.collect(site.keys[2])
    assert site.due() == first  # not merged yet: the same merge, however many arrive
    site.merge()
    (tmp_path / "in.jsonl").rename(tmp_path / "before.jsonl")
    site = _with_folder(tmp_path, {"fraction": 0.5})
    site.collect(*site.keys[:2])
    site.merge()
    site.collect(site.keys[2])
    assert site.due() is None
    write_records(tmp_path / "in" / "b.jsonl", some_records(4 * PER_SHARD))
    site.keys = plan_source(site.open()).all_keys
    assert site.due() is None  # 3 of 8
    site.collect(site.keys[4])
    assert site.due() is not None  # 4 of 8, of which 2 are merged
    site.merge()
    site.collect(site.keys[5])
    assert site.due() is None


def _with_folder(folder: Path, when: Any) -> Site:
    write_records(folder / "in" / "a.jsonl", some_records(4 * PER_SHARD))
    output = {"root": f"{folder}/out-of-folder"}
    return Site(folder, merge_when=when, source={"uri": f"{folder}/in", "id_column": "id"}, output=output)


def test_given_up_shards_are_left_out_where_the_fraction_holds(tmp_path: Path) -> None:
    site = Site(tmp_path, merge_when={"fraction": 0.75})
    site.collect(*site.keys[:3])
    site.merge()
    claim_and_fail(site, site.keys[3])
    ended = site.due()
    assert ended is not None  # nothing is left to come
    assert merged(site.merge()) == site.keys[:3]
    assert site.due() is None


def claim_and_fail(site: Site, key: str) -> None:
    pipeline = site.open()
    list(prepare_shards(pipeline, [key]))
    queue_shards(pipeline, [key])
    claim = site.ledger.claim("texts", key, pipeline.holder, None)
    assert claim is not None
    site.ledger.fail(claim, "it cannot be", max_attempts=0)


def test_at_a_moment_what_there_is_is_merged_once_and_once_more_at_the_end(tmp_path: Path) -> None:
    site = Site(tmp_path, merge_when={"at": "2026-11-21T06:00:00Z"})
    site.collect(site.keys[0])
    assert site.due() is None
    with pytest.raises(
        NotReady, match=r"3 of 4 shards .*before 2026-11-21T06:00\+00:00 a merge takes them all"
    ):
        site.merge()
    site.clock = SIX.timestamp() + 60
    asked = site.due()
    assert asked is not None
    site.collect(site.keys[1])
    assert site.due() == asked
    assert merged(site.merge()) == site.keys[:2]
    site.collect(site.keys[2])
    assert site.due() is None
    assert merged(site.merge()) == site.keys[:3]  # by hand, any time from then on
    site.collect(site.keys[3])
    assert site.due() is not None
    assert merged(site.merge()) == site.keys


def test_at_a_time_of_day_there_is_one_merge_a_day_if_something_has_changed(tmp_path: Path) -> None:
    site = Site(tmp_path, merge_when={"at": "06:00"})
    site.collect(site.keys[0])
    with pytest.raises(NotReady, match="before 06:00 UTC a merge takes them all"):
        site.merge()
    assert site.due() is None
    site.clock = SIX.timestamp() + 1
    first = site.due()
    assert first is not None
    site.merge()
    site.clock += 3_600
    site.collect(site.keys[1])  # after today's time
    assert site.due() is None
    site.clock = SIX.timestamp() + 86_400
    second = site.due()
    assert second not in (None, first)
    site.clock += 20 * 3_600  # asked for late, past midnight
    assert site.due() == second
    assert merged(site.merge()) == site.keys[:2]
    site.clock = SIX.timestamp() + 3 * 86_400
    assert site.due() is None  # nothing new
    site.collect(*site.keys[2:])
    assert site.due() is not None  # all is there: no waiting for the time


@pytest.mark.parametrize(("at", "hours"), [("01:00+02:00", [0, 1, 20]), ("20:00-05:00", [0, 1, 3])])
def test_the_day_of_a_time_with_a_zone_is_that_zones(tmp_path: Path, at: str, hours: list[int]) -> None:
    site = Site(tmp_path, merge_when={"at": at})
    came = datetime.datetime.fromisoformat(f"2026-11-23T{at}").timestamp()
    for hour in hours:
        site.clock = came + hour * 3_600 + 60
        site.collect(site.keys[hours.index(hour)])  # after the time: only the day allows it
        assert len(merged(site.merge())) == hours.index(hour) + 1
    site.clock = datetime.datetime.fromisoformat(f"2026-11-24T00:30{at[5:]}").timestamp()
    with pytest.raises(NotReady, match=r"1 of 4 shards .*a merge takes them all"):
        site.merge()


@pytest.mark.parametrize(
    ("at", "now", "last"),
    [
        (datetime.time(6), SIX, SIX),
        (datetime.time(6), SIX - datetime.timedelta(seconds=1), SIX - datetime.timedelta(days=1)),
        (datetime.time(8, tzinfo=datetime.timezone(datetime.timedelta(hours=2))), SIX, SIX),
        (SIX, SIX, SIX),
        (SIX, SIX - datetime.timedelta(seconds=1), None),
    ],
)
def test_when_a_time_came_last(at: Any, now: datetime.datetime, last: datetime.datetime | None) -> None:
    assert last_time(at, now) == last


def test_by_folder_and_by_column_from_the_settings_on(tmp_path: Path) -> None:
    for name in ("a/x", "b"):
        records = [
            {**record, "lang": ("en", "de")[number % 2]} for number, record in enumerate(some_records(5))
        ]
        write_records(tmp_path / "in" / f"{name}.jsonl", records)
    for by, names in (("folder", ["a", ""]), ("lang", ["en", "de"])):
        source = {"uri": f"{tmp_path}/in", "id_column": "id"}
        site = Site(tmp_path, merge_by=by, source=source, output={"root": f"{tmp_path}/{by}"})
        site.collect(*site.keys)
        manifest = site.merge()
        assert [group.name for group in manifest.groups] == names
        assert sum(group.rows for group in manifest.groups) == 10
        assert not verify(site.settings.output.root).problems


def test_folders_can_be_merged_apart_that_were_planned_together(tmp_path: Path) -> None:
    """The embeddings are not computed again: rows of shards that cross folders are sorted into groups."""
    names = ("a/x", "a/y", "b/deep/x", "c")
    for name in names:
        write_records(tmp_path / "in" / f"{name}.jsonl", some_records(3))
    source = {"uri": f"{tmp_path}/in", "id_column": "id"}
    site = Site(tmp_path, source=source, shards={"records": 5})
    site.collect(*site.keys)
    assert len(site.keys) == 3  # of 5, 5 and 2 records
    assert site.merge().rows == 12
    site.settings = site.settings.model_copy(update={"merge_by": "folder"})
    manifest = site.merge()
    root = Path(site.settings.output.root)
    found = {
        group.name: [
            row
            for part in manifest.parts
            if part.group == group.name
            for row in pl.read_parquet(root / manifest.path(part)).select("source_file", "source_row").rows()
        ]
        for group in manifest.groups
    }
    assert found == {
        "a": [(f"a/{name}.jsonl", row) for name in "xy" for row in range(3)],
        "b/deep": [("b/deep/x.jsonl", row) for row in range(3)],
        "": [("c.jsonl", row) for row in range(3)],
    }
    assert not verify(site.settings.output.root).problems


def test_groups_that_cannot_be_are_refused_as_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="merge_by: there is no output column 'lang'"):
        Site(tmp_path, merge_by="lang")
    assert not (tmp_path / "out").exists()
    for by, output, message in (
        ("embedding", {"root": "out"}, "merge_by: 'embedding' cannot be used: vectors make no groups"),
        (
            "folder",
            {"root": "out", "single_file": True},
            "merge_by: 'folder' cannot be used: it makes several",
        ),
    ):
        values = {"source": {"uri": "in"}, "output": output, "merge_by": by}
        with pytest.raises(ConfigurationError, match=message):
            parse_pipeline(values, "texts", "a test")
