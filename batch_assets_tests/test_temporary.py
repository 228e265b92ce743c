"""What a killed process has left half written is removed by whoever writes there next; a living one's files stay."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batch_assets.merge.publishing import start_version
from batch_assets.paths import is_own_name
from batch_assets.storage import open_storage, temporary
from batch_assets.storage.temporary import is_abandoned, make_temporary
from batch_assets_tests.waiting import wait_until

WRITER = """
import sys
from batch_assets.storage import open_storage
output = open_storage(sys.argv[1]).open_output(sys.argv[2])
output.write(b"half")
output.flush()
print("written", flush=True)
sys.stdin.read()
"""


def start_writer(root: Path, path: str) -> subprocess.Popen[str]:
    """A process that is at a file, and has not finished it."""
    command = [sys.executable, "-c", WRITER, str(root), path]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "written\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def hidden(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.name.startswith("."))


def test_only_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    living, dead = start_writer(tmp_path, "shards/a.parquet"), start_writer(tmp_path, "shards/b.parquet")
    try:
        kill(dead)
        (tmp_path / "shards" / ".notes").write_text("a person's own")
        assert len(hidden(tmp_path / "shards")) == 3
        open_storage(str(tmp_path)).write("shards/c", b"whole")
        found = hidden(tmp_path / "shards")
        assert len(found) == 2 and found[0].startswith(".a.parquet.") and found[1] == ".notes"
    finally:
        kill(living)


def test_a_killed_merge_leaves_nothing_behind(tmp_path: Path) -> None:
    dead = start_writer(tmp_path, "merged/v000001-01234567/data/part-00000.parquet")
    kill(dead)
    start_version(open_storage(str(tmp_path)), None, "0123456789")
    assert hidden(tmp_path / "merged" / "v000001-01234567" / "data") == []


def test_a_zombie_writes_no_more(tmp_path: Path) -> None:
    process = start_writer(tmp_path, "a")
    [name] = hidden(tmp_path)
    assert not is_abandoned(name)
    process.send_signal(signal.SIGKILL)
    wait_until(lambda: is_abandoned(name))
    process.communicate()
    assert is_abandoned(name)


def test_what_is_of_another_host_or_container_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(start_writer(tmp_path, "a"))
    [name] = hidden(tmp_path)
    assert is_abandoned(name)
    monkeypatch.setattr(temporary, "_place", lambda: "0123456789ab-4026531836")
    assert not is_abandoned(name)
    open_storage(str(tmp_path)).write("b", b"")
    assert hidden(tmp_path) == [name]


def test_a_process_that_has_taken_a_dead_ones_number_is_another_one(tmp_path: Path) -> None:
    handle, path = make_temporary(tmp_path / "a")
    os.close(handle)
    name = os.path.basename(path)
    started = name.split(".unfinished")[0].split("-")[-2]
    assert not is_abandoned(name)
    assert is_abandoned(name.replace(f"-{started}-", "-1-"))


def test_a_long_name_leaves_room_for_the_mark(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    storage.write("ä" * 127, b"content")
    assert storage.read("ä" * 127) == b"content" and hidden(tmp_path) == []


def test_where_nothing_tells_of_processes_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(start_writer(tmp_path, "a"))
    before = hidden(tmp_path)
    monkeypatch.setattr(temporary, "_place", lambda: None)
    open_storage(str(tmp_path)).write("b", b"content")
    assert hidden(tmp_path) == before


@pytest.mark.parametrize("place", ["0123456789ab-4026531836", None])
def test_an_unfinished_file_of_ours_may_be_cleaned_away_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    monkeypatch.setattr(temporary, "_place", lambda: place)
    (tmp_path / "shards" / "g0001-00000").mkdir(parents=True)

    def unfinished(name: str) -> str:
        handle, path = make_temporary(tmp_path / "shards" / "g0001-00000" / name)
        os.close(handle)
        return os.path.relpath(path, tmp_path)

    assert is_own_name(unfinished("embeddings-3.parquet"))
    assert not is_own_name(unfinished("notes.txt"))
