"""What the rehearsal billed: by job, by on-demand call, and by what was computed how often.

A record is known by a digest of its modelInput (Bedrock) or its text (SageMaker), whatever it was
called; what AWS Batch runs, by command and index. `spoiled` counts
results that were paid for but never reached the customer whole (cut lines, lost files):
to pay for those again is no fault of the customer's, to pay for others again is.
"""

import hashlib
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson


@dataclass(slots=True)
class Account:
    """What one job, or all on-demand calls, cost."""

    records: int = 0
    paid: int = 0
    spoiled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0


@dataclass(slots=True)
class Instances:
    """What one transform job took: seconds of all its instances together, and what became of its objects."""

    seconds: float = 0.0
    succeeded: int = 0
    failed: int = 0


@dataclass(slots=True)
class Runs:
    """How often AWS Batch ran one command at one index of an array (None: a plain job), and how it ended.

    `began` counts processes, `seconds` are virtual ones of attempts.
    """

    began: int = 0
    succeeded: int = 0
    failed: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Processed:
    """How often one modelInput was computed, paid for, and paid for in vain."""

    times: int = 0
    paid: int = 0
    spoiled: int = 0


@dataclass(slots=True)
class Entry:
    """One record that a model was given. `spoiled`: its result will not arrive whole."""

    digest: bytes
    paid: bool
    spoiled: bool = False
    input_tokens: int = 0
    output_tokens: int = 0


def digest_of(model_input: Any) -> bytes:
    """16 bytes that stand for a modelInput."""
    content = orjson.dumps(model_input, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=16).digest()


@dataclass
class Books:
    """The rehearsal's accounts. Every method may be called from any thread."""

    jobs: dict[str, Account] = field(default_factory=lambda: defaultdict(Account))
    on_demand: Account = field(default_factory=Account)
    processed: dict[bytes, Processed] = field(default_factory=lambda: defaultdict(Processed))
    transforms: dict[str, Instances] = field(default_factory=lambda: defaultdict(Instances))
    runs: dict[tuple[str, int | None], Runs] = field(default_factory=lambda: defaultdict(Runs))
    calls: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, operation: str, outcome: str) -> None:
        """Count a call; `outcome` is `ok`, `lost` or the name of the error."""
        with self._lock:
            self.calls[operation][outcome] += 1

    def post(
        self, job: str | None, entries: Iterable[Entry], input_price: float, output_price: float
    ) -> None:
        """Bill a job's records, or an on-demand call's (job None). Prices are USD per million tokens."""
        with self._lock:
            account = self.on_demand if job is None else self.jobs[job]
            for entry in entries:
                known = self.processed[entry.digest]
                known.times += 1
                account.records += 1
                if entry.paid:
                    known.paid += 1
                    known.spoiled += entry.spoiled
                    account.paid += 1
                    account.spoiled += entry.spoiled
                    account.input_tokens += entry.input_tokens
                    account.output_tokens += entry.output_tokens
                    account.usd += (
                        entry.input_tokens * input_price + entry.output_tokens * output_price
                    ) / 1_000_000

    def objects(self, job: str, succeeded: int, failed: int) -> None:
        """Note what became of a transform job's objects."""
        with self._lock:
            self.transforms[job].succeeded += succeeded
            self.transforms[job].failed += failed

    def instances(self, job: str, seconds: float) -> None:
        """Bill a transform job's instances."""
        with self._lock:
            self.transforms[job].seconds += seconds

    def began(self, command: str, index: int | None) -> None:
        """Note that a process of AWS Batch began."""
        with self._lock:
            self.runs[command, index].began += 1

    def ended(self, command: str, index: int | None, succeeded: bool, seconds: float) -> None:
        """Note how an attempt of AWS Batch ended."""
        with self._lock:
            runs = self.runs[command, index]
            runs.succeeded += succeeded
            runs.failed += not succeeded
            runs.seconds += seconds

    def paid_again(self) -> dict[bytes, Processed]:
        """Inputs that were paid for again after a whole result of theirs, by digest."""
        with self._lock:
            return {
                digest: known for digest, known in self.processed.items() if known.paid - known.spoiled > 1
            }

    def as_dict(self) -> dict[str, Any]:
        """The books as JSON."""
        again = self.paid_again()
        with self._lock:
            every = [*self.jobs.values(), self.on_demand]
            return {
                "records": {
                    "distinct": len(self.processed),
                    "processed": sum(known.times for known in self.processed.values()),
                    "paid": sum(known.paid for known in self.processed.values()),
                    "spoiled": sum(known.spoiled for known in self.processed.values()),
                    "paid_again": len(again),
                },
                "input_tokens": sum(account.input_tokens for account in every),
                "output_tokens": sum(account.output_tokens for account in every),
                "usd": sum(account.usd for account in every),
                "jobs": {job: asdict(account) for job, account in self.jobs.items()},
                "on_demand": asdict(self.on_demand),
                "transforms": {job: asdict(account) for job, account in self.transforms.items()},
                "runs": [
                    {"command": command, "index": index} | asdict(runs)
                    for (command, index), runs in self.runs.items()
                ],
                "calls": {operation: dict(counts) for operation, counts in self.calls.items()},
                "paid_again": {digest.hex(): asdict(known) for digest, known in list(again.items())[:1000]},
            }
