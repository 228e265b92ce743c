"""Stand-ins for what is slow or costs money: each as small as its protocol allows."""

import hashlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from batch_assets.control import parity
from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.schema import Task
from batch_assets.errors import ModelError
from batch_assets.executors.base import Limits, Progress
from batch_assets.merge.base import Manifest
from batch_assets.merge.parity import ParityOutcome
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets.sources.base import Records
from batch_assets.storage import Storage
from batch_assets.worker.attempt import Attempt, ShardRun
from batch_assets.worker.run_shard import run_shard

DIMENSIONS = 8


def fake_vector(text: str) -> npt.NDArray[np.float32]:
    """The unit vector that FakeExecutor makes of a text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
    vector = np.random.default_rng(seed).normal(size=DIMENSIONS)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


ALIKE = ParityOutcome(True, "all alike", 1.0, 0.99999, 8, "float32")
UNLIKE = ParityOutcome(False, "lowest cosine 0.980000 over 64 records", 0.98, 0.9995, 64, "bfloat16")


def find_parity(monkeypatch: pytest.MonkeyPatch, outcome: ParityOutcome = ALIKE) -> list[str]:
    """Let every comparison with the model's own library find this; returns the versions compared."""
    compared: list[str] = []

    def measure(pipeline: object, manifest: Manifest) -> ParityOutcome:
        compared.append(manifest.version)
        return outcome

    monkeypatch.setattr(parity, "measure_parity", measure)
    return compared


@dataclass
class FakeHost:
    """A machine with a model that needs no library. `before(shard)` is called before a shard is computed."""

    progress: Progress | None = None
    before: Callable[[Shard], None] = lambda shard: None
    model_is_missing: bool = False
    computed: list[str] = field(default_factory=list)

    def executor(self, settings: PipelineSettings) -> "FakeExecutor":
        return FakeExecutor(self, settings)


@dataclass
class FakeExecutor:
    """A shard runner: reads the shard and makes `fake_vector` of every text."""

    host: FakeHost
    settings: PipelineSettings
    kind: str = "gpu"
    in_place: bool = True
    limits: Limits = field(default_factory=Limits)
    task: Task = "embed"

    def exclusive_device(self) -> str | None:
        return None

    def at_once(self) -> int:
        return 1

    def fingerprint(self) -> str:
        return hashlib.sha256(self.settings.model.model_dump_json().encode()).hexdigest()[:32]

    def check(self) -> None:
        pass

    def cancel(self, job: str) -> None:
        pass

    def run(self, attempt: Attempt, storage: Storage) -> ShardRun:
        def compute(batches: Iterator[Records], facts: JobFacts) -> Generator[Outcomes, None, None]:
            if self.host.model_is_missing:
                raise ModelError("model fake: its weights cannot be loaded; install them")
            self.host.before(attempt.shard)
            self.host.computed.append(attempt.shard.key)
            facts.model, facts.dtype, facts.device, facts.dimensions = "fake", "float32", "cpu", DIMENSIONS
            for records in batches:
                vectors = [fake_vector(text) for text in records.texts]
                yield Outcomes(
                    records,
                    np.arange(len(records)),
                    np.stack(vectors) if vectors else np.empty((0, DIMENSIONS), np.float32),
                    np.array([len(text.split()) for text in records.texts], np.int32),
                )

        return run_shard(attempt, storage, compute)
