"""Cleanup of merged versions: one is left over from its replacement on, in whichever layout it was written."""

import os
import time
from pathlib import Path

import pytest

from batch_assets.control.retention import UNNAMED_SECONDS
from batch_assets.merge.publishing import current, open_current
from batch_assets.merge.verification import verify
from batch_assets_tests.control.cleaned import DAY, Cleaned, counted
from batch_assets_tests.merge.old_roots import make_old


def test_a_version_is_left_over_from_its_replacement_on(tmp_path: Path) -> None:
    pipe = Cleaned(tmp_path, {"merged": "7d"})
    storage = pipe.open().storage
    first = current(storage)
    age(pipe.root / f"merged/{first}", 30 * DAY)
    assert counted(pipe.find()) == {}
    pipe.add("d")
    second = current(storage)
    assert counted(pipe.find(after=6 * DAY)) == {}  # its readers have a week
    pipe.add("e")
    manifest = open_current(storage)
    assert manifest is not None
    assert manifest.previous == second
    claim_version(pipe, "v000001-00000000")  # a merge that died, or one by another ledger
    versions = {path.split("/")[1] for path in pipe.files() if path.startswith("merged/")}
    assert versions == {"CURRENT", first, second, manifest.version, "v000001-00000000"}
    assert counted(pipe.find()) == {"merged": 6 + 7}
    assert counted(pipe.find(after=7 * DAY + UNNAMED_SECONDS + 60)) == {"merged": 6 + 7 + 2}
    pipe.remove(after=7 * DAY + UNNAMED_SECONDS + 60)
    versions = {path.split("/")[1] for path in pipe.files() if path.startswith("merged/")}
    assert versions == {"CURRENT", manifest.version}
    assert not verify(str(pipe.root)).problems


@pytest.mark.parametrize("folder", ["", "data/", "news/", "data/news/"])
def test_versions_of_the_older_layout_are_left_over_like_others(tmp_path: Path, folder: str) -> None:
    pipe = Cleaned(tmp_path, {"merged": "7d"})
    make_old(pipe.root)
    pipe.add("d")
    claim_version(pipe, "v000001-00000000", folder)
    assert not verify(str(pipe.root)).problems
    assert counted(pipe.remove(after=7 * DAY + UNNAMED_SECONDS + 60)) == {"merged": 6 + 2}
    versions = {path.split("/")[1] for path in pipe.files() if path.startswith("merged/")}
    assert versions == {"CURRENT", current(pipe.open().storage)}
    assert not verify(str(pipe.root)).problems


def claim_version(pipe: Cleaned, version: str, folder: str = "data/") -> None:
    pipe.put(f"merged/{version}/{folder}part-00000.parquet")
    (pipe.root / f"merged/{version}/metadata.json").write_bytes(b'{"state": "merging"}')


def age(folder: Path, seconds: float) -> None:
    for path in folder.iterdir():
        os.utime(path, (time.time() - seconds, time.time() - seconds))
