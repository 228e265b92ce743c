"""A first plan that cannot be made leaves the output root as it was, and takes nothing of anybody else's."""

import gzip
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from batch_assets.control.pipeline import open_pipeline
from batch_assets.control.planning import plan_source
from batch_assets.errors import BatchAssetsError, ConfigurationError
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sources.spool import SpooledSource
from batch_assets.storage import FileInfo
from batch_assets_tests.command import published, some_records, write_records
from batch_assets_tests.control.builders import (
    PER_SHARD,
    assert_published,
    make_settings,
    open_ledger,
    run,
    write_input,
)
from batch_assets_tests.fakes import FakeHost

Files = dict[str, bytes]


def files_under(folder: Path) -> Files:
    """Every file and folder below; a folder has no content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def compressed_input(folder: Path) -> None:
    lines = b"".join(orjson.dumps(record) + b"\n" for record in some_records(PER_SHARD))
    (folder / "in").mkdir()
    for name in "ab":
        (folder / "in" / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines))


def wrong_column(folder: Path, **output: str) -> PipelineSettings:
    return make_settings(
        folder,
        source={"uri": f"{folder}/in", "text_column": "no_such_column"},
        output={"root": f"{folder}/out", **output},
    )


def plan(settings: PipelineSettings, folder: Path, ledger: str = "ledger") -> None:
    plan_source(open_pipeline(settings, open_ledger(folder, ledger), FakeHost().executor(settings)))


def test_a_root_that_was_not_there_is_not_there_afterwards(tmp_path: Path) -> None:
    compressed_input(tmp_path)
    with pytest.raises(ConfigurationError, match="no_such_column"):
        plan(wrong_column(tmp_path), tmp_path)
    assert not (tmp_path / "out").exists()


def test_what_lies_in_the_root_already_stays(tmp_path: Path) -> None:
    compressed_input(tmp_path)
    for name in ("spool/mine.jsonl", "spool/0123456789abcdef.parquet", "shards/notes.txt", "readme"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("mine")
    (tmp_path / "out" / "merged").mkdir()
    before = files_under(tmp_path / "out")
    with pytest.raises(ConfigurationError, match="no_such_column"):
        plan(wrong_column(tmp_path), tmp_path)
    assert files_under(tmp_path / "out") == before


@pytest.mark.parametrize("empty", ["out", "out/spool"])
def test_an_empty_folder_of_the_user_stays(tmp_path: Path, empty: str) -> None:
    compressed_input(tmp_path)
    (tmp_path / empty).mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="no_such_column"):
        plan(wrong_column(tmp_path), tmp_path)
    assert (tmp_path / empty).is_dir()
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("own", ["spool", "plan", "jobs", "shards", "merged", "requests", "spool/deeper"])
def test_a_source_inside_the_roots_own_folders_is_refused(tmp_path: Path, own: str) -> None:
    write_records(tmp_path / "d" / own / "mine.jsonl", some_records(PER_SHARD))
    before = files_under(tmp_path / "d")
    for uri in (f"{tmp_path}/d/{own}", f"{tmp_path}/d/{own}/mine.jsonl"):
        settings = make_settings(tmp_path, source={"uri": uri}, output={"root": f"{tmp_path}/d"})
        with pytest.raises(ConfigurationError, match="pipeline's own files"):
            plan(settings, tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "d" / own)
    settings = make_settings(tmp_path, source={"uri": f"{tmp_path}/link"}, output={"root": f"{tmp_path}/d"})
    with pytest.raises(ConfigurationError, match="pipeline's own files"):
        plan(settings, tmp_path)
    assert files_under(tmp_path / "d") == before


@pytest.mark.parametrize(
    ("source", "output"),
    [("data", "link/out"), ("link", "data/out"), ("data", "data/linked/out"), ("data", "data/real/out")],
)
def test_the_root_is_no_part_of_its_source_however_both_are_spelled(
    tmp_path: Path, source: str, output: str
) -> None:
    write_records(tmp_path / "data" / "in.jsonl", some_records(PER_SHARD))
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "real").mkdir()
    if "linked" in output:
        (tmp_path / "data" / "linked").symlink_to(tmp_path / "data" / "real")
    settings = make_settings(
        tmp_path, source={"uri": f"{tmp_path}/{source}"}, output={"root": f"{tmp_path}/{output}"}
    )
    ledger = open_ledger(tmp_path)
    for _ in range(2):
        run(settings, ledger, FakeHost())
        write_records(tmp_path / output / "merged" / "more.jsonl", some_records(1))
        assert len(published(tmp_path / output)) == PER_SHARD
    same = make_settings(tmp_path, source={"uri": f"{tmp_path}/data"}, output={"root": f"{tmp_path}/link"})
    with pytest.raises(ConfigurationError, match="is the source's own folder"):
        plan(same, tmp_path, "other")


@pytest.mark.parametrize("own_ledger", [True, False])
def test_of_two_first_planners_the_failing_one_takes_nothing_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_ledger: bool
) -> None:
    """The first has read half of its source when the second comes, fails, and leaves."""
    compressed_input(tmp_path)
    good = make_settings(tmp_path, source={"uri": f"{tmp_path}/in", "id_column": "id"})
    between = Files()

    def interrupted() -> None:
        before = files_under(tmp_path / "out")
        with pytest.raises(BatchAssetsError):
            plan(wrong_column(tmp_path), tmp_path, "other" if own_ledger else "ledger")
        between.update(before)
        assert files_under(tmp_path / "out").items() >= before.items()

    on_second_file(monkeypatch, interrupted)
    ledger, host = open_ledger(tmp_path), FakeHost()
    run(good, ledger, host)
    assert len(between) >= 2  # the folder, and the first file's spool
    expected = sorted(str(record["text"]) for record in some_records(PER_SHARD) * 2)
    assert sorted(published(tmp_path / "out")["text"].to_list()) == expected


def on_second_file(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Call `act` once, before the second file of a source is prepared."""
    prepare, seen = SpooledSource.prepare, list[str]()

    def watched(self: SpooledSource, file: FileInfo, most: int | None) -> str:
        seen.append(file.path)
        if len(seen) == 2:
            act()
        return prepare(self, file, most)

    monkeypatch.setattr(SpooledSource, "prepare", watched)


def test_the_next_try_with_the_right_column_works(tmp_path: Path) -> None:
    write_input(tmp_path, 2)
    wrong = make_settings(tmp_path, source={"uri": f"{tmp_path}/in.jsonl", "text_column": "no_such_column"})
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="no_such_column"):
            plan(wrong, tmp_path)
    run(make_settings(tmp_path), open_ledger(tmp_path), FakeHost())
    assert_published(tmp_path / "out", 2 * PER_SHARD)


@pytest.mark.parametrize("lost", [["pipeline.json", "plan"], ["plan"], ["pipeline.json"]])
def test_what_an_earlier_pipeline_wrote_is_not_written_over(tmp_path: Path, lost: list[str]) -> None:
    """Without its plan nobody knows what it is of: a shard of another plan would be taken for this one's."""
    write_input(tmp_path, 2)
    run(make_settings(tmp_path), open_ledger(tmp_path), FakeHost())
    root = tmp_path / "out"
    for name in lost:
        (root / name).rename(tmp_path / f"lost-{name}")
    before = files_under(root)
    write_records(tmp_path / "in.jsonl", some_records(3 * PER_SHARD)[PER_SHARD:])
    if lost == ["pipeline.json"]:
        plan(make_settings(tmp_path), tmp_path, "new")  # with its plan the root goes on
        assert files_under(root).items() >= before.items()
        return
    for ledger in ("ledger", "new"):
        with pytest.raises(BatchAssetsError, match="plan"):
            plan(make_settings(tmp_path), tmp_path, ledger)
    # An owner's name may be written again, or its epoch raised.
    kept = {name: data for name, data in before.items() if name != "pipeline.json"}
    assert {name: data for name, data in files_under(root).items() if name != "pipeline.json"} == kept
