"""Bedrock batch jobs from the queue to the published dataset, without an account: how full slots are, and chaos.

By simulated time our control loop, beside a scheduler on a one-minute timer; by real time the
command before an AWS of localhost; then the same with all faults on, command and daemon killed
at random. Exits 1 where a target is missed. How fast results are read is `bedrock_collection`.

    python -m benchmarks.bedrock_rehearsal [--quick] [--folder DIR] [--seed N]
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from batch_assets.rehearsal.faults import Scenario
from benchmarks.bedrock_chaos import CALLS_AT_ONCE, WatchedBooks, examine, kill_at_random, run_undisturbed
from benchmarks.bedrock_service import SimulatedBedrock
from benchmarks.bedrock_simulation import by_control_loop, by_timer
from benchmarks.bedrock_stage import staged

TARGET_BUSY, TARGET_CALLS = 0.97, 4.0
MINUTE, HOUR = 60.0, 3600.0
LONG, SHORT = (10 * MINUTE, 6 * HOUR), (10 * MINUTE, 15 * MINUTE)

# shards, slots, seconds that a job takes, whether events tell of its end
SIMULATIONS = [
    (2_000, 20, LONG, True),
    (2_000, 20, LONG, False),
    (2_000, 100, LONG, True),
    (2_000, 100, SHORT, True),
    (6_000, 20, LONG, True),
    (6_000, 100, LONG, True),
]
QUICK_SIMULATIONS = [(100, 20, LONG, True)]

SHARDS, SLOTS = 40, 8
QUICK_SHARDS = 16
SPEED = 60.0  # virtual seconds in a real one
TIMING = {"running": (120, 480)}
KILLS = ("daemon", "command", "command") * 4
QUICK_KILLS = ("command",)
CHAOS_SPEED = 200.0
EXPIRY_HOUR = 60.0  # of 24: else a job that expires is waited for longer than for all others


def main() -> int:
    """Run everything and print it; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer shards and one kill: about a minute")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="a folder on the disk to measure")
    parser.add_argument("--seed", type=int, default=1, help="of the faults and of the kills")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="benchmark-bedrock-") as name:
        folder = Path(name)
        held = simulate(folder, quick=arguments.quick)
        rehearse(folder / "calm", QUICK_SHARDS if arguments.quick else SHARDS)
        held &= disturb(folder / "stormy", arguments.seed, quick=arguments.quick)
    return 0 if held else 1


def simulate(folder: Path, *, quick: bool) -> bool:
    """By simulated time; whether every target is held."""
    print(
        f"by simulated time; targets: slots busy {TARGET_BUSY:.0%}; {TARGET_CALLS:g} calls per job, with events"
    )
    print(f"{'':34} {'busy':>12} {'makespan, h':>15} {'':7} {'calls per job':>13} {'ms per':>7}")
    print(
        f"{'shards  slots  jobs take':34} {'ours':>6} {'peer':>5} {'ours':>8} {'peer':>6} {'ratio':>7} "
        f"{'ours':>7} {'peer':>5} {'turn':>7}"
    )
    held = True
    for number, (shards, slots, between, events) in enumerate(QUICK_SIMULATIONS if quick else SIMULATIONS):
        place = folder / f"simulated-{number}"
        place.mkdir()
        ours = by_control_loop(SimulatedBedrock(slots, *between), place, shards, events=events)
        peer = by_timer(SimulatedBedrock(slots, *between), shards)
        missed = ours.busy < TARGET_BUSY or (events and ours.calls_per_job > TARGET_CALLS)
        held &= not missed
        low, high = (f"{seconds / MINUTE:g}" for seconds in between)
        what = f"{shards:6,} {slots:6}  {low} to {high} min{'' if events else ', no queue'}"
        print(
            f"{what:34} {ours.busy:6.1%} {peer.busy:5.1%} {ours.makespan / HOUR:8.1f} {peer.makespan / HOUR:6.1f} "
            f"{peer.makespan / ours.makespan:6.2f}x {ours.calls_per_job:7.2f} {peer.calls_per_job:5.2f} "
            f"{ours.turn_milliseconds:7.1f}{'  missed' if missed else ''}",
            flush=True,
        )
    return held


def rehearse(folder: Path, shards: int) -> None:
    """By real time, no faults."""
    scenario = Scenario.of({"quotas": {"concurrent_jobs": SLOTS}, "timing": TIMING})
    with staged(folder, scenario, SPEED, shards) as stage:
        seconds = run_undisturbed(stage)
        jobs = [(job.submitted, job.ended or job.submitted) for job in stage.jobs]
    until = max(submitted for submitted, _ in jobs)
    first = min(submitted for submitted, _ in jobs)
    taken = sum(ended - submitted for submitted, ended in jobs)
    busy = sum(min(ended, until) - submitted for submitted, ended in jobs) / ((until - first) * SLOTS)
    at_service = (max(ended for _, ended in jobs) - first) / SPEED
    print(
        f"by real time: {shards} shards, {SLOTS} slots, jobs of {taken / len(jobs) / SPEED:.1f} s; "
        f"ideal {taken / SLOTS / SPEED:.1f} s, at the service {at_service:.1f} s, the command {seconds:.1f} s; "
        f"slots busy {busy:.1%}",
        flush=True,
    )


def disturb(folder: Path, seed: int, *, quick: bool) -> bool:
    """All faults on, and kill -9; whether nothing was lost, doubled, or paid for twice."""
    changes = {"seed": seed, "quotas": {"concurrent_jobs": SLOTS}, "timing": {"hour": EXPIRY_HOUR}}
    if quick:  # for files that never come, a minute is waited
        changes["output"] = {"absent": 0.0, "absent_manifest": 0.0}
    chance, books = random.Random(seed), WatchedBooks()
    shards, plan = (QUICK_SHARDS, QUICK_KILLS) if quick else (SHARDS, KILLS)
    print(f"chaos: {shards} shards, {SLOTS} slots, every fault on, seed {seed}")
    scenario = Scenario.load("stormy").changed(changes)
    kills = 0
    with staged(folder, scenario, CHAOS_SPEED, shards, books=books) as stage:
        started = time.monotonic()
        for what in plan:
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
    held = found.holds(kills)
    print("  held" if held else "  missed")
    return held


if __name__ == "__main__":
    sys.exit(main())
