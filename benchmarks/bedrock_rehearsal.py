"""Bedrock batch jobs from the queue to the published dataset, without an account: how full slots are, and chaos.

By simulated time our control loop, beside a scheduler on a one-minute timer; by real time the
command before an AWS of localhost; then the same with all faults on, command and daemon killed
at random. Exits 1 where a target is missed. How fast results are read is `bedrock_collection`.

    python -m benchmarks.bedrock_rehearsal [--quick | --smallest] [--folder DIR] [--seed N]
"""

import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from batch_assets.rehearsal.faults import Scenario
from benchmarks.arguments import Size, make_parser
from benchmarks.bedrock_chaos import CALLS_AT_ONCE, WatchedBooks, examine, kill_at_random, run_undisturbed
from benchmarks.bedrock_service import SimulatedBedrock
from benchmarks.bedrock_simulation import by_control_loop, by_timer
from benchmarks.bedrock_stage import staged
from benchmarks.measure import Targets

TARGET_BUSY, TARGET_CALLS = 0.97, 4.0
MINUTE, HOUR = 60.0, 3600.0
LONG, SHORT = (10 * MINUTE, 6 * HOUR), (10 * MINUTE, 15 * MINUTE)

TIMING = {"running": (120, 480)}
CHAOS_SPEED, CHAOS_SLOTS = 200.0, 8
EXPIRY_HOUR = 60.0  # of 24: else a job that expires is waited for longer than for all others


@dataclass(frozen=True)
class Backfill:
    """What is simulated: how many seconds a job takes, and whether events tell of its end."""

    shards: int
    slots: int
    between: tuple[float, float]
    events: bool = True


@dataclass(frozen=True)
class Counts:
    backfills: tuple[Backfill, ...]
    shards: int
    slots: int  # without faults, and so is the speed: virtual seconds in a real one
    speed: float
    kills: tuple[str, ...]
    wait_for_absent: bool  # a minute for each result file that never comes


COUNTS = {
    Size.FULL: Counts(
        backfills=(
            Backfill(2_000, 20, LONG),
            Backfill(2_000, 20, LONG, events=False),
            Backfill(2_000, 100, LONG),
            Backfill(2_000, 100, SHORT),
            Backfill(6_000, 20, LONG),
            Backfill(6_000, 100, LONG),
        ),
        shards=40,
        slots=8,
        speed=60.0,
        kills=("daemon", "command", "command") * 4,
        wait_for_absent=True,
    ),
    Size.QUICK: Counts(
        backfills=(Backfill(100, 20, LONG),),
        shards=16,
        slots=8,
        speed=60.0,
        kills=("command",),
        wait_for_absent=False,
    ),
    Size.SMALLEST: Counts(
        backfills=(Backfill(8, 2, SHORT), Backfill(8, 2, SHORT, events=False)),
        shards=2,
        slots=1,
        speed=600.0,
        kills=("command",),
        wait_for_absent=False,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print it; the exit code."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="a folder on the disk to measure")
    parser.add_argument("--seed", type=int, default=1, help="of the faults and of the kills")
    given = parser.parse_args(arguments)
    size: Size = given.size
    counts, targets = COUNTS[size], Targets(size.judged)
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="benchmark-bedrock-") as name:
        folder = Path(name)
        simulate(folder, counts.backfills, targets)
        rehearse(folder / "calm", counts)
        disturb(folder / "stormy", counts, given.seed, targets)
    return targets.exit_code()


def simulate(folder: Path, backfills: Sequence[Backfill], targets: Targets) -> None:
    """By simulated time."""
    print(
        f"by simulated time; targets: slots busy {TARGET_BUSY:.0%}; {TARGET_CALLS:g} calls per job, with events"
    )
    print(f"{'':34} {'busy':>12} {'makespan, h':>15} {'':7} {'calls per job':>13} {'ms per':>7}")
    print(
        f"{'shards  slots  jobs take':34} {'ours':>6} {'peer':>5} {'ours':>8} {'peer':>6} {'ratio':>7} "
        f"{'ours':>7} {'peer':>5} {'turn':>7}"
    )
    for number, one in enumerate(backfills):
        place = folder / f"simulated-{number}"
        place.mkdir()
        ours = by_control_loop(
            SimulatedBedrock(one.slots, *one.between), place, one.shards, events=one.events
        )
        peer = by_timer(SimulatedBedrock(one.slots, *one.between), one.shards)
        low, high = (f"{seconds / MINUTE:g}" for seconds in one.between)
        what = f"{one.shards:6,} {one.slots:6}  {low} to {high} min{'' if one.events else ', no queue'}"
        held = ours.busy >= TARGET_BUSY and (not one.events or ours.calls_per_job <= TARGET_CALLS)
        verdict = targets.judge(f"simulated {' '.join(what.split())}", held)
        print(
            f"{what:34} {ours.busy:6.1%} {peer.busy:5.1%} {ours.makespan / HOUR:8.1f} {peer.makespan / HOUR:6.1f} "
            f"{peer.makespan / ours.makespan:6.2f}x {ours.calls_per_job:7.2f} {peer.calls_per_job:5.2f} "
            f"{ours.turn_milliseconds:7.1f}{verdict}",
            flush=True,
        )


def rehearse(folder: Path, counts: Counts) -> None:
    """By real time, no faults."""
    shards, slots, speed = counts.shards, counts.slots, counts.speed
    scenario = Scenario.of({"quotas": {"concurrent_jobs": slots}, "timing": TIMING})
    with staged(folder, scenario, speed, shards) as stage:
        seconds = run_undisturbed(stage)
        jobs = [(job.submitted, job.ended or job.submitted) for job in stage.jobs]
    until = max(submitted for submitted, _ in jobs)
    first = min(submitted for submitted, _ in jobs)
    taken = sum(ended - submitted for submitted, ended in jobs)
    busy = sum(min(ended, until) - submitted for submitted, ended in jobs) / ((until - first) * slots)
    at_service = (max(ended for _, ended in jobs) - first) / speed
    print(
        f"by real time: {shards} shards, {slots} slots, jobs of {taken / len(jobs) / speed:.1f} s; "
        f"ideal {taken / slots / speed:.1f} s, at the service {at_service:.1f} s, the command {seconds:.1f} s; "
        f"slots busy {busy:.1%}",
        flush=True,
    )


def disturb(folder: Path, counts: Counts, seed: int, targets: Targets) -> None:
    """All faults on, and kill -9: nothing may be lost, doubled, or paid for twice."""
    changes = {"seed": seed, "quotas": {"concurrent_jobs": CHAOS_SLOTS}, "timing": {"hour": EXPIRY_HOUR}}
    if not counts.wait_for_absent:
        changes["output"] = {"absent": 0.0, "absent_manifest": 0.0}
    chance, books = random.Random(seed), WatchedBooks()
    shards = counts.shards
    print(f"chaos: {shards} shards, {CHAOS_SLOTS} slots, every fault on, seed {seed}")
    scenario = Scenario.load("stormy").changed(changes)
    kills = 0
    with staged(folder, scenario, CHAOS_SPEED, shards, books=books) as stage:
        started = time.monotonic()
        for what in counts.kills:
            if stage.published:
                break
            killed = kill_at_random(stage, what, chance)
            if killed is not None:
                kills += 1
                print(f"  {killed.describe()}", flush=True)
        last = run_undisturbed(stage)
        found = examine(stage, books)
    print(
        f"  then undisturbed to the end in {last:.1f} s, {time.monotonic() - started:.0f} s in all; {found.jobs} jobs, "
        f"{found.embedded:,} records embedded, {found.failed} failed with a reason"
    )
    print(
        f"  {found.lost} lost, {found.doubled} doubled, {found.wrong} with another's vector, {found.paid_again} paid "
        f"for twice by us, {found.orphans} orphan jobs, {found.unsettled} unsettled; target 0"
    )
    print(
        f"  {found.calls_again} calls for single records paid again, under way at a kill; "
        f"target {CALLS_AT_ONCE} a kill"
    )
    print(targets.require("chaos", found.holds(kills)) or "  held")


if __name__ == "__main__":
    raise SystemExit(main())
