"""Who may read what is written to a disk is decided by the umask, as with any program."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batch_assets.storage import Storage, open_storage


def write_out(storage: Storage) -> None:
    with storage.open_output("folder/file") as output:
        output.write(b"1")


def replace(storage: Storage) -> None:
    storage.create("folder/file", b"1")
    found = storage.read_versioned("folder/file")
    assert found is not None
    assert storage.replace("folder/file", b"2", found[1])


@pytest.fixture(params=[0o002, 0o022, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize(
    "write",
    [
        write_out,
        replace,
        lambda storage: storage.create("folder/file", b"1"),
        lambda storage: storage.write("folder/file", b"1"),
    ],
    ids=["open_output", "replace", "create", "write"],
)
def test_files_and_folders_have_the_rights_that_the_umask_leaves(
    tmp_path: Path, umask: int, write: Callable[[Storage], object]
) -> None:
    write(open_storage(str(tmp_path)))
    assert (tmp_path / "folder/file").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]
