"""Another pipeline's output, and metadata of other tools, inside a source."""

import json
from pathlib import Path
from typing import Any

import pytest

from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.sources.foreign import FileRules, matches
from batch_assets.sources.listing import Listing, list_source
from batch_assets_tests.sharding.planning import write_lines

TEXTS = FileRules(required=["text"])
RECORD = json.dumps({"text": "a", "id": 1})
OWNER = {"pipeline": "texts", "epoch": 1, "source": ["x"], "configuration": {}}


def put(folder: Path, name: str, content: Any = RECORD, indent: int | None = None) -> None:
    text = content if isinstance(content, str) else json.dumps(content, indent=indent)
    write_lines(folder / name, [text])


def paths(listing: Listing) -> list[str]:
    return [info.path for info in listing.files]


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("notes.jsonl", "a/notes.jsonl", True), ("notes", "a/notes/b.jsonl", True), ("*.json", "a/b.json", True),
        ("a/*.json", "a/b.json", True), ("a/*.json", "c/a/b.json", False), ("a/", "a/b.json", True),
        ("raw/2023-*", "raw/2023-01/x.json", True), ("a", "ab/x.json", False), ("A", "a/x.json", False),
    ],
)  # fmt: skip
def test_patterns(pattern: str, path: str, found: bool) -> None:
    assert matches(path, [pattern]) is found


def test_excluded_files_are_told(tmp_path: Path) -> None:
    for name in ("a.jsonl", "notes.jsonl", "old/b.jsonl"):
        put(tmp_path, name)
    listing = list_source(str(tmp_path), None, rules=FileRules(exclude=["notes.jsonl", "old"]))
    assert paths(listing) == ["a.jsonl"]
    assert listing.left_out == ["2 files by source.exclude, such as notes.jsonl"]


def test_an_excluded_table_refuses_nothing(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl")
    put(tmp_path, "table/_delta_log/0.json")
    assert paths(list_source(str(tmp_path), None, rules=FileRules(exclude=["table"]))) == ["a.jsonl"]


def test_another_output_root_is_left_out_whole(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl")
    put(tmp_path, "deep/out/pipeline.json", OWNER, indent=2)
    for name in (
        "plan/g0001.json",
        "shards/g0001-00000/shard.json",
        "metadata.json",
        "jobs/x/requests.jsonl",
    ):
        put(tmp_path, f"deep/out/{name}", {"x": 1})
    listing = list_source(str(tmp_path), None, rules=TEXTS)
    assert paths(listing) == ["a.jsonl"]
    assert listing.left_out == ["deep/out/, the output root of pipeline texts"]


def test_an_output_root_is_no_source(tmp_path: Path) -> None:
    put(tmp_path, "pipeline.json", OWNER)
    put(tmp_path, "plan/g0001.json", {"x": 1})
    with pytest.raises(
        ConfigurationError, match=r"is the output root of pipeline texts; .*merged/<version>/data"
    ):
        list_source(str(tmp_path), None)


def test_folders_that_only_have_such_names_are_data(tmp_path: Path) -> None:
    for name in ("pipeline.json", "plan/g0001.json", "shards/b.json", "jobs/c.jsonl"):
        put(tmp_path, name)
    assert len(paths(list_source(str(tmp_path), None, rules=TEXTS))) == 4


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.json", {"model": "x", "rows": 3}),
        ("x/manifest.json", {"files": []}),
        ("00000_stats.json", {"count": 3, "successes": 2}),
        ("train/state.json", {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}),
        ("train/dataset_info.json", {"features": {}}),
        ("dataset_dict.json", {"splits": ["train"]}),
    ],
)
@pytest.mark.parametrize("indent", [None, 4])
def test_metadata_of_other_tools_is_left_out(
    tmp_path: Path, name: str, content: dict[str, Any], indent: int | None
) -> None:
    put(tmp_path, "a.jsonl")
    put(tmp_path, name, content, indent)
    listing = list_source(str(tmp_path), None, rules=TEXTS)
    assert paths(listing) == ["a.jsonl"]
    [told] = listing.left_out
    assert f"1 files of metadata that other tools write ({name})" in told
    assert len(paths(list_source(str(tmp_path), None, rules=FileRules(always_include=[name])))) == 2


def test_a_file_of_such_a_name_that_holds_records_is_data(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl")
    put(tmp_path, "metadata.json")
    assert paths(list_source(str(tmp_path), None, rules=TEXTS)) == ["a.jsonl", "metadata.json"]


def test_a_record_with_nan_is_a_record_here_too(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl")
    put(tmp_path, "words_stats.json", {"text": "x", "score": float("nan")})
    assert paths(list_source(str(tmp_path), None, rules=TEXTS)) == ["a.jsonl", "words_stats.json"]


def test_the_only_file_is_data(tmp_path: Path) -> None:
    put(tmp_path, "metadata.json", {"anything": 1}, indent=2)
    assert paths(list_source(str(tmp_path), None, rules=TEXTS)) == ["metadata.json"]
    assert paths(list_source(str(tmp_path / "metadata.json"), None, rules=TEXTS)) == ["metadata.json"]


def test_what_save_to_disk_writes_holds_no_records(tmp_path: Path) -> None:
    put(tmp_path, "state.json", {"_fingerprint": "x"}, indent=2)
    put(tmp_path, "dataset_info.json", {"features": {}}, indent=2)
    put(tmp_path, "data-00000-of-00001.arrow", "ARROW1")
    with pytest.raises(SourceError, match=r"save_to_disk.*to_parquet"):
        list_source(str(tmp_path), None, rules=TEXTS)


def test_metadata_beside_parquet_needs_no_choice_of_a_format(tmp_path: Path) -> None:
    put(tmp_path, "a.parquet", "PAR1")
    put(tmp_path, "metadata.json", {"rows": 1}, indent=2)
    listing = list_source(str(tmp_path), None, rules=TEXTS)
    assert (listing.format, paths(listing)) == ("parquet", ["a.parquet"])
