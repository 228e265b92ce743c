"""The real command as a process of its own, with a home of its own."""

import atexit
import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
import polars as pl

from batch_assets_tests.forking import CommandProcess
from batch_assets_tests.waiting import PATIENCE_SECONDS

ACCOUNTING = re.compile(r"accounting: planned=(\d+) embedded=(\d+) rejected=(\d+) failed=(\d+)")


@dataclass(frozen=True)
class Machine:
    """A home and an environment: what makes one deployment differ from another."""

    home: Path
    environment: dict[str, str]

    def start(self, *arguments: object, program: Callable[[], object] | None = None) -> CommandProcess:
        """Start the command, or what runs it, and do not wait for it."""
        return CommandProcess([str(argument) for argument in arguments], self.environment, program)

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        process = self.start(*arguments)
        try:
            stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()  # of one that has ended, nothing
        assert process.returncode is not None
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@functools.cache
def _databases_of_dagster() -> Path:
    """A home in which Dagster has made its databases, half a second's work; it ends with this process."""
    import dagster as dg

    folder = Path(tempfile.mkdtemp(prefix="batch-assets-home-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    dg.DagsterInstance.local_temp(str(folder)).dispose()
    return folder


def make_home(folder: Path) -> Path:
    """A home for Dagster, with empty databases of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("history", "schedules"):
        shutil.copytree(_databases_of_dagster() / name, folder / name, dirs_exist_ok=True)
    return folder


def make_machine(folder: Path, **environment: str) -> Machine:
    """A deployment whose home is `folder`; nothing of the tester's own environment reaches it."""
    make_home(folder)
    kept = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG", "PYTHONPYCACHEPREFIX")
        if name in os.environ
    }
    own = {"DAGSTER_HOME": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
    return Machine(folder, kept | own | environment)


def accounting_of(result: subprocess.CompletedProcess[str]) -> tuple[int, int, int, int]:
    """(planned, embedded, rejected, failed) of the last line of stdout."""
    lines = result.stdout.strip().splitlines()
    found = ACCOUNTING.fullmatch(lines[-1]) if lines else None
    assert found is not None, f"no accounting line:\n{result.stdout}\n{result.stderr}"
    planned, embedded, rejected, failed = map(int, found.groups())
    return planned, embedded, rejected, failed


def published(root: Path) -> pl.DataFrame:
    """The rows of the published version, by its manifest."""
    version = (root / "merged" / "CURRENT").read_text().strip()
    folder = root / "merged" / version
    manifest = json.loads((folder / "manifest.json").read_text())
    return pl.concat([pl.read_parquet(folder / part["uri"]) for part in manifest["parts"]])


def write_records(file: Path, records: list[dict[str, object]]) -> Path:
    """A JSONL file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return file


def some_records(count: int, first: int = 0) -> list[dict[str, object]]:
    """Records of different lengths, with an id, a text and a number."""
    words = "the quick brown fox jumps over a lazy dog while rain falls on quiet hills".split()
    return [
        {
            "id": f"record-{number}",
            "text": " ".join(words[(number + step) % len(words)] for step in range(1 + number * 7 % 40)),
            "number": number,
        }
        for number in range(first, first + count)
    ]
