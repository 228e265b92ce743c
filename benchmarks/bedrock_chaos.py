"""Kill -9 of the command and of the daemon, all faults on, and then the proof that nothing came of it.

What must hold is said by the output, by the ledger, and by the service's own books.
"""

import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from batch_assets.ledger.states import ENDED_SUBMISSION
from batch_assets.rehearsal.books import Books, Entry
from batch_assets.rehearsal.vectors import embed
from benchmarks.bedrock_stage import DIMENSIONS, PER_SHARD, Stage, kill

CALLS_AT_ONCE = 4  # calls of the model for single records that may be under way when a process is killed
CALLS_BEFORE_A_KILL = 60
PATIENCE_SECONDS = 60.0
LAST_RUN_SECONDS = 400.0


@dataclass
class WatchedBooks(Books):
    """Books that also tell which inputs were paid for by calls for single records, and how often."""

    called: Counter[bytes] = field(default_factory=Counter)

    def post(
        self, job: str | None, entries: Iterable[Entry], input_price: float, output_price: float
    ) -> None:
        entries = list(entries)
        if job is None:
            self.called.update(entry.digest for entry in entries if entry.paid)
        super().post(job, entries, input_price, output_price)


@dataclass(frozen=True)
class Kill:
    """What was killed, how many seconds after its start, and how many shards were where then."""

    what: str
    seconds: float
    shards: dict[str, int]

    def describe(self) -> str:
        where = ", ".join(f"{count} {state}" for state, count in self.shards.items())
        return f"{self.what} killed after {self.seconds:4.1f} s: {where or 'nothing planned'}"


def kill_at_random(stage: Stage, what: str, chance: random.Random) -> Kill | None:
    """Start the command or the daemon and kill it after a random number of calls; None where it had ended."""
    started = time.monotonic()
    enough = stage.calls() + chance.randint(1, CALLS_BEFORE_A_KILL)
    process = stage.start_command() if what == "command" else stage.start_daemon()
    while process.poll() is None and stage.calls() < enough and time.monotonic() - started < PATIENCE_SECONDS:
        time.sleep(0.01)
    wait_for(process, chance.uniform(0.0, 1.0))  # so that it is not always just after a call
    over = process.poll() is not None
    kill(process)
    return None if over else Kill(what, time.monotonic() - started, shards_by_state(stage))


def wait_for(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def shards_by_state(stage: Stage) -> dict[str, int]:
    ledger = stage.ledger()
    counts = ledger.counts(stage.rehearsal.name) if ledger.pipeline(stage.rehearsal.name) else {}
    ledger.dispose()
    return {state.value: count for state, count in counts.items() if count}


def run_undisturbed(stage: Stage) -> float:
    """The command once more, to its end; its seconds. RuntimeError where it publishes nothing."""
    started = time.monotonic()
    process = stage.start_command()
    code = wait_for(process, LAST_RUN_SECONDS)
    kill(process)
    if code != 0:
        log = (stage.rehearsal.folder / "log.txt").read_text(errors="replace").splitlines()
        raise RuntimeError(f"the last run ended with {code}:\n" + "\n".join(log[-30:]))
    return time.monotonic() - started


@dataclass(frozen=True)
class Findings:
    """What became of the records and of the jobs; everything but the first two and the last two must be zero.

    `paid_again` are records paid for again after a whole result of theirs had been written;
    `calls_again` are those paid for again by a call that was under way when its process was killed.
    """

    embedded: int
    failed: int
    lost: int
    doubled: int
    wrong: int
    paid_again: int
    orphans: int
    unsettled: int
    calls_again: int
    jobs: int

    def holds(self, kills: int) -> bool:
        faults = (self.lost, self.doubled, self.wrong, self.paid_again, self.orphans, self.unsettled)
        return not any(faults) and self.calls_again <= CALLS_AT_ONCE * kills


def examine(stage: Stage, books: WatchedBooks) -> Findings:
    """Compare the published version with what was put in, and the ledger with the service."""
    version = stage.root / "merged" / (stage.root / "merged" / "CURRENT").read_text().strip()
    rows = pl.concat([pl.read_parquet(part) for part in sorted(version.glob("data/part-*.parquet"))])
    failures = pl.read_parquet(version / "failures.parquet")
    told = [*rows["record_id"].to_list(), *failures["record_id"].to_list()]
    wanted = {f"r{number}" for number in range(stage.shards * PER_SHARD)}
    again = books.paid_again()
    calls_again = {digest: count - 1 for digest, count in books.called.items() if count > 1}
    excess = {digest: known.paid - known.spoiled - 1 for digest, known in again.items()}
    orphans, unsettled = compare_jobs(stage)
    return Findings(
        embedded=len(rows),
        failed=len(failures),
        lost=len(wanted - set(told)),
        doubled=len(told) - len(set(told)) + len(set(told) - wanted),
        wrong=wrong_vectors(stage, rows["record_id"].to_list(), np.array(rows["embedding"].to_list())),
        paid_again=sum(times > calls_again.get(digest, 0) for digest, times in excess.items()),
        orphans=orphans,
        unsettled=unsettled,
        calls_again=sum(calls_again.values()),
        jobs=len(stage.jobs),
    )


def wrong_vectors(stage: Stage, ids: Sequence[str], vectors: np.ndarray) -> int:
    expected = embed([stage.text(int(name[1:])) for name in ids], DIMENSIONS)
    return int((~np.isclose(vectors, expected, atol=1e-5).all(axis=1)).sum())


def compare_jobs(stage: Stage) -> tuple[int, int]:
    """Jobs at the service that the ledger does not know, and what either side believes to be under way."""
    ledger = stage.ledger()
    orphans = [job for job in stage.jobs if ledger.submission_by_service_id(job.arn) is None]
    open_here = [row for row in ledger.submissions() if row.state not in ENDED_SUBMISSION and row.service_id]
    money = ledger.money(stage.rehearsal.name)
    ledger.dispose()
    unsettled = len(open_here) + sum(job.active for job in stage.jobs) + (money.held_usd != 0)
    return len(orphans), unsettled
