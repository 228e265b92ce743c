"""Every benchmark runs in its smallest form, and the page about performance names those that there are.

Figures and targets are not looked at: how fast this machine is, while others use it too, is no test.
"""

import importlib
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from batch_assets_tests.forking import forking
from batch_assets_tests.module_imports import REPOSITORY
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until

MARK = "BATCH_ASSETS_TESTED_BENCHMARK"
COMPARED = ("ours", "peer", "ratio", "limit", "target")
PRINTED = {
    "text_cpu": (*COMPARED, "lowest cosine"),
    "images": (*COMPARED, "lowest cosine", "memory"),
    "ray_workers": COMPARED,
    "dispatch": (*COMPARED, "memory", "idle"),
    "in_the_cracks": ("ours", "AIMD", "live p99", "ratio", "limit", "target"),
    "queue_kills": ("lost", "doubled", "made again", "target"),
    "requests": (*COMPARED, "p99 of accepting", "lookup", "from acceptance to result", "window of"),
    "requests_soak": (
        "accepted and answered",
        "memory",
        "ticks",
        "lookup",
        "claim",
        "growth",
        "target",
        "removed",
    ),
    "gateway": (*COMPARED, "window found", "memory"),
    "scale": ("plan and register", "tick job_completion", "growth", "target"),
    "merge": ("cat", "merge", "ratio", "limit", "target", "memory"),
    "bedrock_collection": (*COMPARED, "at the peak"),
    "bedrock_rehearsal": ("calls per job", "target", "by real time", "lost", "held"),
    "array_pipelining": COMPARED,
}


def listed_benchmarks() -> list[str]:
    """What `make bench` runs."""
    found = re.search(r"^BENCHMARKS \?= (.+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1].split()


def test_make_bench_runs_every_benchmark() -> None:
    files = (REPOSITORY / "benchmarks").glob("*.py")
    runnable = {file.stem for file in files if re.search(r"^def main\(", file.read_text(), re.MULTILINE)}
    assert sorted(listed_benchmarks()) == sorted(runnable)


def test_the_page_about_performance_names_the_benchmarks_that_there_are() -> None:
    named = re.findall(r"python -m benchmarks\.(\w+)", (REPOSITORY / "docs" / "performance.md").read_text())
    assert set(named) == set(listed_benchmarks())


@pytest.mark.parametrize("name", listed_benchmarks())
def test_smallest_form_runs(name: str, tmp_path: Path) -> None:
    output, mark = tmp_path / "output", f"{MARK}={tmp_path}"
    process = forking().Process(target=_run, args=(name, str(output), str(tmp_path)))
    process.start()
    try:
        process.join(PATIENCE_SECONDS)
        told = output.read_text(errors="replace")
        assert process.exitcode == 0, told
        assert [word for word in PRINTED[name] if word not in told] == [], told
        wait_until(lambda: not list(_marked(mark)), lambda: f"{name} left processes: {list(_marked(mark))}")
    finally:
        process.kill()
        process.join()
        for child in _marked(mark):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def _run(name: str, output: str, mark: str) -> None:
    """In a process of its own: everything that the benchmark prints goes into a file."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    os.environ[MARK] = mark
    raise SystemExit(importlib.import_module(f"benchmarks.{name}").main(["--smallest"]))


def _marked(mark: str) -> Iterator[int]:
    """Processes that a benchmark has started, and what these have started: they all inherit its environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
