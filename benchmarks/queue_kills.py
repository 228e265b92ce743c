"""Kill -9 of the queue's workers with calls in flight, again and again: no message is lost, none has two results.

Two workers, the command as it is, start together and share a queue. Each is killed at a random moment soon after it has
begun, and when both are gone two others go on; in the end one empties the queue. What must hold is said by the results,
and by the books of the model server: calls made again are no more than could be in flight at the kills.

    python -m benchmarks.queue_kills [--quick | --smallest] [--seed N]
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from batch_assets.dispatch.queues.base import Queue
from batch_assets_tests.gateway.model_servers import RunningServer, model_server
from batch_assets_tests.gateway.scenario import Latency, Scenario
from benchmarks.arguments import Size, make_parser
from benchmarks.dispatch import KINDS, Place, fill, message, places
from benchmarks.measure import Targets

REPOSITORY = Path(__file__).parent.parent
COMMAND = (sys.executable, "-c", "from batch_assets.cli import main; main()", "dispatch")
IN_FLIGHT, WORKERS = 16, 2
CALL_SECONDS, LEASE_SECONDS = 0.04, 1
RESULTS_BEFORE_A_KILL, SECONDS_BEFORE_A_KILL = 40, 0.1
LOOK_SECONDS = 0.005
PATIENCE_SECONDS = 120.0
RESULTS_AT_ONCE = 1_000
QUEUE = "kills"
BEGUN = b"dispatching "
"""What a worker says once its queue is open."""


@dataclass(frozen=True)
class Counts:
    messages: int
    kills: int


COUNTS = {
    Size.FULL: Counts(messages=10_000, kills=100),
    Size.QUICK: Counts(messages=1_000, kills=8),
    Size.SMALLEST: Counts(messages=300, kills=2),
}


@dataclass(frozen=True)
class Findings:
    """What became of the messages, which must be zero; `calls` are all that the server had."""

    lost: int
    doubled: int
    wrong: int  # another message's answer, or an error
    left: int  # in the queue
    calls: int

    @property
    def hold(self) -> bool:
        return not any((self.lost, self.doubled, self.wrong, self.left))


@dataclass(eq=False)
class Running:
    """A worker: `log` is what it says; it is killed `moment`, a while after there are `enough` results."""

    process: "subprocess.Popen[bytes]"
    log: Path
    enough: int | None = None
    moment: float | None = None

    @property
    def has_begun(self) -> bool:
        """Whether it is at work. RuntimeError where it has ended."""
        if self.process.poll() is not None:
            told = self.log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"a worker ended with {self.process.returncode}:\n{told}")
        return BEGUN in self.log.read_bytes()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Stage:
    """A queue, a model server, and workers that come and go."""

    def __init__(self, folder: Path, place: Place, server: RunningServer) -> None:
        self._folder, self._place, self._server = folder, place, server
        self._logs = 0
        self.running: list[Running] = []

    def start(self, *options: str) -> Running:
        """One more worker."""
        self._logs += 1
        log = self._folder / f"{self._place.kind}-{self._logs}.log"
        command = (
            *COMMAND, "--queue", self._place.url(QUEUE), "--endpoint", self._server.url,
            "--concurrency", str(IN_FLIGHT), "--lease-seconds", str(LEASE_SECONDS), *options,
        )  # fmt: skip
        environment = os.environ | {"DAGSTER_HOME": str(self._folder), "PYTHONPATH": str(REPOSITORY)}
        environment.pop("BATCH_ASSETS_LEDGER_URL", None)
        with log.open("wb") as file:
            process = subprocess.Popen(command, env=environment, cwd=self._folder, stdout=file, stderr=file)
        self.running.append(Running(process, log))
        return self.running[-1]

    def kill_due(self, results: int, chance: random.Random) -> int:
        """Kill the workers whose moment has come; how many."""
        killed = 0
        for worker in [each for each in self.running if each.has_begun]:
            if worker.enough is None:
                worker.enough = results + chance.randint(1, RESULTS_BEFORE_A_KILL)
            if worker.moment is None and results >= worker.enough:
                worker.moment = time.monotonic() + chance.uniform(0, SECONDS_BEFORE_A_KILL)
            if worker.moment is not None and time.monotonic() >= worker.moment:
                worker.kill()
                self.running.remove(worker)
                killed += 1
        return killed

    def close(self) -> None:
        """Kill whatever still runs."""
        while self.running:
            self.running.pop().kill()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both kinds of queues and print what became of the messages; the exit code."""
    parser = make_parser(__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills")
    given = parser.parse_args(arguments)
    size: Size = given.size
    counts, targets = COUNTS[size], Targets(size.judged)
    with tempfile.TemporaryDirectory(prefix="benchmark-kills-") as name, places(Path(name)) as found:
        for kind in KINDS:
            folder = Path(name) / kind
            folder.mkdir()
            scenario = Scenario(latency=Latency(seconds=CALL_SECONDS))
            with (
                model_server(folder, scenario) as server,
                contextlib.closing(Stage(Path(name), found[kind], server)) as stage,
            ):
                asyncio.run(_disturb(stage, found[kind], server, counts, given.seed, targets))
    return targets.exit_code()


async def _disturb(
    stage: Stage, place: Place, server: RunningServer, counts: Counts, seed: int, targets: Targets
) -> None:
    chance = random.Random(f"{seed} {place.kind}")
    await fill(place, QUEUE, map(message, range(counts.messages)))
    began = time.monotonic()
    async with place.queue(QUEUE) as queue:
        kills = await _kill_workers(stage, queue, counts, chance)
        rest = counts.messages - (await queue.depth()).results
        await _empty(stage)
        found = await _examine(queue, counts.messages, server)
    again = found.calls - counts.messages
    print(
        f"{place.kind}: {counts.messages:,} messages, {kills} kills of {WORKERS} workers with {IN_FLIGHT} calls in "
        f"flight each, the last {rest:,} undisturbed; {time.monotonic() - began:.0f} s"
    )
    verdict = targets.require(f"{place.kind}, messages", found.hold)
    print(
        f"  {found.lost} lost, {found.doubled} doubled, {found.wrong} with another answer, {found.left} left in the "
        f"queue, target 0{verdict}"
    )
    verdict = targets.judge(f"{place.kind}, calls", again <= IN_FLIGHT * kills)
    print(
        f"  {again:,} calls made again, {again / max(kills, 1):.1f} a kill, target at most {IN_FLIGHT} a kill{verdict}",
        flush=True,
    )
    verdict = targets.judge(f"{place.kind}, kills", kills == counts.kills)
    if verdict:
        print(f"  all messages had ended after {kills} of {counts.kills} kills{verdict}")


async def _kill_workers(stage: Stage, queue: Queue, counts: Counts, chance: random.Random) -> int:
    """Kill workers while there are messages; how many were killed."""
    kills = 0
    while kills < counts.kills:
        for _ in range(min(WORKERS, counts.kills - kills)):
            stage.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while stage.running:
            depth = await queue.depth()
            if depth.waiting + depth.claimed == 0:
                return kills
            kills += stage.kill_due(depth.results, chance)
            if time.monotonic() > deadline:
                raise RuntimeError(f"no results came for {PATIENCE_SECONDS:.0f} s: {depth}")
            await asyncio.sleep(LOOK_SECONDS)
    return kills


async def _empty(stage: Stage) -> None:
    """Have one worker end what is left."""
    stage.close()
    last = stage.start("--until-empty")
    if await asyncio.to_thread(last.process.wait, PATIENCE_SECONDS) == 0:
        stage.running.remove(last)
    else:
        assert last.has_begun  # tells what it said


async def _examine(queue: Queue, messages: int, server: RunningServer) -> Findings:
    depth = await queue.depth()
    results: list[bytes] = []
    while some := await queue.take_results(RESULTS_AT_ONCE):
        results += some
    told = [orjson.loads(result) for result in results]
    names = Counter(result["id"] for result in told)
    wanted = {f"m{number}": number for number in range(messages)}
    return Findings(
        lost=len(wanted.keys() - names.keys()),
        doubled=sum(names.values()) - len(names),
        wrong=sum(result["id"] not in wanted or not _fits(result, wanted[result["id"]]) for result in told),
        left=depth.waiting + depth.claimed,
        calls=len(server.entries()),
    )


def _fits(result: dict[str, object], number: int) -> bool:
    """Whether a result is the answer to the message of this number."""
    return result.get("status_code") == 200 and f"fox number {number} " in str(result.get("payload"))


if __name__ == "__main__":
    raise SystemExit(main())
