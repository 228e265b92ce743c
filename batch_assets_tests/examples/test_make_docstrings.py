"""The quickstart's text: complete, always the same, and never made twice."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from batch_assets_tests.module_imports import REPOSITORY


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_docstrings", REPOSITORY / "examples/make_docstrings.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_writes_files_of_equal_length_with_the_standard_library_first(
    example: ModuleType, tmp_path: Path
) -> None:
    folder = tmp_path / "demo" / "docstrings"
    assert example.write_docstrings(folder) == 8_000
    files = sorted(folder.glob("*.jsonl"))
    records = [[json.loads(line) for line in file.read_bytes().splitlines()] for file in files]
    assert [len(part) for part in records] == [1_000] * 8
    everything = [record for part in records for record in part]
    names = [record["id"] for record in everything]
    assert len(set(names)) == len({record["text"] for record in everything}) == 8_000
    assert {"lzma", "bz2", "gzip", "argparse", "smtplib.SMTP", "zipfile.ZipFile.open"} <= set(names)
    libraries = [record["library"] for record in everything]
    assert libraries == sorted(libraries, key="site-packages".__eq__)
    assert {record["kind"] for record in everything} == {"module", "class", "function", "method"}


def test_a_complete_folder_stays_as_it_is(example: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "docstrings"
    example.write_docstrings(folder, wanted=30, files=3)
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert example.write_docstrings(folder, wanted=30, files=3) == 30
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["docstrings"]


def test_a_folder_with_other_files_is_refused(example: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("{}\n")
    with pytest.raises(SystemExit, match="remove it or name another folder"):
        example.write_docstrings(tmp_path)
    assert (tmp_path / "mine.jsonl").read_text() == "{}\n"
