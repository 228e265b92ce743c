"""What benchmarks share: taking turns, medians, targets, and the lines they print.

Runs take turns in one process, so that whatever else the machine does hits them alike, and
ratios are taken within a round.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Result = TypeVar("Result")


def take_turns(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Wall seconds of each run in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


@dataclass(frozen=True)
class Comparison:
    """Ours against one peer: rates of each round, in `unit`; `limit` is the most there could be."""

    name: str
    unit: str
    ours: Sequence[float]
    peer: Sequence[float]
    limit: float
    target: float

    @property
    def ratio(self) -> float:
        return statistics.median(ours / peer for ours, peer in zip(self.ours, self.peer, strict=True))


@dataclass
class Targets:
    """The targets of one run; where figures mean nothing, only what must be right at any size is `judged`."""

    judged: bool
    missed: list[str] = field(default_factory=list)

    def judge(self, name: str, held: bool) -> str:
        """What to print behind a figure: that its target is missed, or nothing."""
        return self.require(name, held or not self.judged)

    def require(self, name: str, held: bool) -> str:
        """As `judge`, for what a benchmark of any size must get right: no record lost, the vectors the peer's."""
        if held:
            return ""
        self.missed.append(name)
        return "  missed"

    def exit_code(self) -> int:
        """1 where a target was missed, whose names are printed; else 0."""
        if self.missed:
            print(f"missed: {', '.join(self.missed)}")
        return 1 if self.missed else 0


def report(comparisons: Sequence[Comparison], targets: Targets) -> None:
    """Print medians, ratio, limit and target of each."""
    width = max(len(comparison.name) for comparison in comparisons)
    print(f"{'':{width}}  {'ours':>10} {'peer':>10} {'ratio':>7} {'limit':>10} {'target':>7}")
    for each in comparisons:
        ours, peer = statistics.median(each.ours), statistics.median(each.peer)
        verdict = targets.judge(each.name, each.ratio >= each.target)
        figures = f"{ours:10,.1f} {peer:10,.1f} {each.ratio:6.2f}x {each.limit:10,.1f} {each.target:6.2f}x"
        print(f"{each.name:{width}}  {figures}  {each.unit}{verdict}")


def in_new_process(function: Callable[..., Result], *arguments: object) -> Result:
    """What a module's function returns in a process that has done nothing else, so that memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_megabytes() -> float:
    """The most memory that this process has had; what getrusage tells includes its parent's before exec."""
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    return int(peak) * 1024 / 1e6


def lowest_cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """The lowest cosine between two sets of vectors (records, dimensions), row by row."""
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())
