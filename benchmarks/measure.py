"""What benchmarks share: taking turns, medians, and the lines they print.

Runs take turns in one process, so that whatever else the machine does hits them alike, and
ratios are taken within a round.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


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


def report(comparisons: Sequence[Comparison]) -> int:
    """Print medians, ratio, limit and target of each; the exit code: 1 where a target is missed."""
    width = max(len(comparison.name) for comparison in comparisons)
    print(f"{'':{width}}  {'ours':>10} {'peer':>10} {'ratio':>7} {'limit':>10} {'target':>7}")
    missed = 0
    for each in comparisons:
        ours, peer = statistics.median(each.ours), statistics.median(each.peer)
        verdict = "" if each.ratio >= each.target else "  missed"
        missed += bool(verdict)
        figures = f"{ours:10,.1f} {peer:10,.1f} {each.ratio:6.2f}x {each.limit:10,.1f} {each.target:6.2f}x"
        print(f"{each.name:{width}}  {figures}  {each.unit}{verdict}")
    return 1 if missed else 0
