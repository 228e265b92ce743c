"""Served models: the executor gateway beside a bare loop of aiohttp, and how soon it finds how much a server takes.

Ours is records to outcomes: prompts or texts into bodies, calls, judged answers, arrays. The bare loop sends bodies
that were made before and reads answers without looking at them, with as many in flight. The server is a process of its
own and has no model; on two cores it takes one of them.

    python -m benchmarks.gateway [--quick | --smallest]
"""

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import openai

from batch_assets.embeddings.facts import JobFacts
from batch_assets.executors.gateway.answers import AnswerCalls
from batch_assets.executors.gateway.embeddings import EmbeddingCalls
from batch_assets.executors.gateway.requests import Requests
from batch_assets.executors.gateway.servers import ModelServers
from batch_assets.executors.gateway.streaming import streamed
from batch_assets.gateway.delivery import Server
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets.sources.base import Records
from batch_assets.sources.records import empty_columns
from batch_assets_tests.gateway.model_servers import model_server
from batch_assets_tests.gateway.scenario import Latency, Scenario
from benchmarks.arguments import Size, make_parser
from benchmarks.bare_loop import send_bare
from benchmarks.measure import Comparison, Targets, in_new_process, peak_megabytes, report, take_turns

IN_FLIGHT, MOST_CONNECTIONS = 64, 16
SLOW_SECONDS = 0.05
BESIDE_SLOW, BESIDE_INSTANT, BESIDE_EMBEDDINGS = 0.90, 0.70, 0.95
SLOTS = {4: 0.05, 64: 0.2, 300: 0.4}
"""How many calls the server is at at a time, and the seconds of each: at most 750 answers a second."""
EMBEDDING = Latency(slots=MOST_CONNECTIONS, seconds=0.1)
"""A call of 32 texts: 5,120 records a second."""
NEAR = 0.8
"""The window is found where the server delivers at least so much of what it delivers at best."""
GROWTH = 1.15
BATCH = 2048
INPUTS = 32


@dataclass(frozen=True)
class Counts:
    answers: int
    texts: int
    rounds: int
    seconds: float
    memory: tuple[int, int]


COUNTS = {
    Size.FULL: Counts(answers=20_000, texts=100_000, rounds=5, seconds=20, memory=(250_000, 1_000_000)),
    Size.QUICK: Counts(answers=3_000, texts=20_000, rounds=3, seconds=8, memory=(10_000, 30_000)),
    Size.SMALLEST: Counts(answers=64, texts=64, rounds=1, seconds=0.2, memory=(64, 128)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print it; the exit code."""
    size: Size = make_parser(__doc__).parse_args(arguments).size
    counts, targets = COUNTS[size], Targets(size.judged)
    comparisons: list[Comparison] = []
    with tempfile.TemporaryDirectory() as place:
        for name, scenario, target in (
            ("answers, 50 ms each", Scenario(latency=Latency(seconds=SLOW_SECONDS)), BESIDE_SLOW),
            ("answers, at once", Scenario(), BESIDE_INSTANT),
        ):
            with model_server(Path(place), scenario, books=False) as server:
                comparisons.append(_answers(name, server.url, counts, target))
                if scenario == Scenario():
                    comparisons.append(_beside_the_official_client(server.url, counts))
        with model_server(Path(place), Scenario(latency=EMBEDDING), books=False) as server:
            comparisons.append(_embeddings(server.url, counts))
        report(comparisons, targets)
        for slots, taken in SLOTS.items():
            latency = Latency(slots=slots, seconds=taken)
            with model_server(Path(place), Scenario(latency=latency), books=False) as server:
                _find_window(server.url, slots, slots / taken, counts.seconds, targets)
        with model_server(Path(place), books=False) as server:
            few, many = (in_new_process(peak_memory, server.url, number) for number in counts.memory)
        verdict = targets.judge("memory", many <= GROWTH * few)
        print(
            f"memory: {few:,.0f} MB at {counts.memory[0]:,} records, {many:,.0f} MB at {counts.memory[1]:,}: "
            f"{many / few:.2f}x, target {GROWTH:.2f}x{verdict}"
        )
    return targets.exit_code()


def _answers(name: str, url: str, counts: Counts, target: float) -> Comparison:
    settings = _settings(url, task="generate", executor={"concurrency": IN_FLIGHT})
    requests = Requests(settings)
    bodies = [requests.answer(_text(number)) for number in range(counts.answers)]
    return _compare(
        f"{name}, {IN_FLIGHT} in flight",
        "calls/s",
        counts.answers,
        lambda: stream(settings, counts.answers),
        lambda: asyncio.run(send_bare(url + requests.path, bodies, IN_FLIGHT)),
        counts.rounds,
        target,
    )


def _embeddings(url: str, counts: Counts) -> Comparison:
    settings = _settings(url, executor={"concurrency": MOST_CONNECTIONS})
    requests = Requests(settings)
    texts = [_text(number) for number in range(counts.texts)]
    bodies = [requests.embeddings(texts[first : first + INPUTS]) for first in range(0, len(texts), INPUTS)]
    return _compare(
        f"embeddings, {INPUTS} a call, {MOST_CONNECTIONS} in flight",
        "records/s",
        counts.texts,
        lambda: stream(settings, counts.texts),
        lambda: asyncio.run(send_bare(url + requests.path, bodies, MOST_CONNECTIONS)),
        counts.rounds,
        BESIDE_EMBEDDINGS,
    )


def _beside_the_official_client(url: str, counts: Counts) -> Comparison:
    few = counts.answers // 4
    settings = _settings(url, task="generate", executor={"concurrency": IN_FLIGHT})
    ours, theirs = (lambda: stream(settings, few)), (lambda: asyncio.run(_official(url, few)))
    return _compare("answers, beside the official client", "calls/s", few, ours, theirs, counts.rounds, 1.0)


def _compare(
    name: str,
    unit: str,
    amount: int,
    ours: Callable[[], object],
    peer: Callable[[], object],
    rounds: int,
    target: float,
) -> Comparison:
    seconds = take_turns({"ours": ours, "peer": peer}, rounds)
    rates = {who: [amount / each for each in taken] for who, taken in seconds.items()}
    return Comparison(name, unit, rates["ours"], rates["peer"], statistics.median(rates["peer"]), target)


def stream(
    settings: PipelineSettings, records: int, heed: Callable[[Server, int], bool] | None = None
) -> int:
    """Send so many records; how many were answered. `heed` gets the server and that number, and ends it by True."""
    servers, requests = ModelServers(), Requests(settings)
    server = servers.server(settings)
    calls = AnswerCalls(requests, 5, None) if requests.task == "generate" else EmbeddingCalls(requests, 5)
    compute = streamed(
        calls,
        server,
        servers.start,
        records_per_call=requests.inputs_per_call,
        is_cancelled=lambda: False,
        progress=None,
    )
    done = 0
    outcomes = compute(_records(records), JobFacts())
    for some in outcomes:
        done += len(some.rows)
        if heed is not None and heed(server, done):
            outcomes.close()
            return done
    assert done == records, f"{done} of {records} records were answered"
    return done


def _find_window(url: str, slots: int, best: float, seconds: float, targets: Targets) -> None:
    """Send for some seconds to a server of so many slots, with nothing set, and tell when the window was found.

    `best` is what it answers a second with all slots in use.
    """
    began = time.perf_counter()
    seen: list[tuple[float, int]] = []
    found: tuple[float, int, int] | None = None

    def heed(server: Server, done: int) -> bool:
        nonlocal found
        now = time.perf_counter() - began
        seen.append((now, done))
        if found is None and server.window.size >= NEAR * slots:
            found = (now, done, server.window.refusals)
        return now > seconds

    settings = _settings(url, task="generate", executor={})
    stream(settings, 10**9, heed)
    half = [each for each in seen if each[0] >= seconds / 2]
    rate = (half[-1][1] - half[0][1]) / max(half[-1][0] - half[0][0], 1e-9)
    told = (
        "not found" if found is None else f"after {found[0]:.1f} s, {found[1]:,} answers, {found[2]} refusals"
    )
    verdict = targets.judge(f"window of {slots}", found is not None and rate >= NEAR * best)
    print(
        f"a server of {slots} slots: window found {told}; then {rate:,.0f} answers/s of {best:,.0f}, "
        f"{rate / best:.2f}, target {NEAR:.2f}{verdict}"
    )


def peak_memory(url: str, records: int) -> float:
    """Megabytes at the peak of a process that sends so many records."""
    stream(_settings(url, task="generate", executor={"concurrency": IN_FLIGHT}), records)
    return peak_megabytes()


async def _official(url: str, answers: int) -> None:
    left = iter(range(answers))
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

        async def send() -> None:
            for number in left:
                message = {"role": "user", "content": _text(number)}
                await client.chat.completions.create(model="test-model", messages=[message])  # type: ignore[list-item]

        await asyncio.gather(*(send() for _ in range(IN_FLIGHT)))


def _settings(url: str, *, executor: dict[str, object], **attributes: object) -> PipelineSettings:
    values: dict[str, object] = {
        "source": {"uri": "none"},
        "model": {"id": "test-model"},
        "executor": {"type": "gateway", "base_url": url, **executor},
        "output": {"root": "none"},
    }
    return parse_pipeline(values | attributes, "benchmark", "the benchmark")


def _text(number: int) -> str:
    return f"The quick brown fox number {number} jumps over the lazy dog while rain falls on the quiet hills."


def _records(records: int) -> Iterator[Records]:
    for first in itertools.count(0, BATCH):
        numbers = range(first, min(first + BATCH, records))
        if not numbers:
            return
        names = [f"r{number}" for number in numbers]
        files = ["in.jsonl"] * len(names)
        texts = [_text(number) for number in numbers]
        yield Records(list(numbers), names, files, list(numbers), texts, empty_columns(len(names)))


if __name__ == "__main__":
    raise SystemExit(main())
