"""What every executor promises. A new one subclasses `ExecutorContract` and says how it is made."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import pytest

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.executors.base import Executor, JobHandle, JobState
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import OutputSettings, PipelineSettings, ShardSettings
from batch_assets.settings.source import SourceSettings
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.plan_files import write_plan
from batch_assets.sharding.planner import plan_generation
from batch_assets.storage import open_storage
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.waiting import wait_until

RECORDS, SHARD_RECORDS, EMPTY_ROW = 60, 25, 7
UNDER_WAY = (JobState.SUBMITTED, JobState.RUNNING)


class ExecutorContract(ABC):
    """Tests for one executor; subclasses implement `make`."""

    @abstractmethod
    def make(self, settings: PipelineSettings) -> Executor: ...

    def configured(self, settings: PipelineSettings) -> PipelineSettings:
        """The settings with what this executor needs."""
        return settings

    @pytest.fixture
    def settings(self, tmp_path: Path, tiny_model: Path) -> PipelineSettings:
        records = some_records(RECORDS)
        records[EMPTY_ROW]["text"] = " "
        write_records(tmp_path / "in.jsonl", records)
        plain = PipelineSettings(
            name="contract",
            source=SourceSettings(uri=str(tmp_path / "in.jsonl"), id_column="id"),
            model=ModelSettings(id=str(tiny_model), dtype="float32"),
            shards=ShardSettings(records=SHARD_RECORDS),
            output=OutputSettings(root=str(tmp_path / "out")),
        )
        return self.configured(plain)

    @pytest.fixture
    def shards(self, settings: PipelineSettings) -> list[Shard]:
        storage = open_storage(settings.output.root)
        planned = plan_generation(settings, storage)
        write_plan(storage, planned.summary, planned.shards)
        return list(planned.shards)

    @pytest.fixture
    def executor(self, settings: PipelineSettings) -> Executor:
        return self.make(settings)

    def submitted(self, executor: Executor, shards: list[Shard]) -> list[JobHandle]:
        return executor.submit([executor.prepare(shard, 1) for shard in shards], token="once")

    def outcomes(self, executor: Executor, handle: JobHandle, facts: JobFacts) -> list[Outcomes]:
        """What a job comes to, once it has ended; one in place begins only then."""
        wait_until(lambda: executor.poll([handle])[0].state not in UNDER_WAY, "the job does not end")
        return list(executor.collect(handle, facts))

    def test_every_record_comes_out_once_and_in_order(self, executor: Executor, shards: list[Shard]) -> None:
        for handle, shard in zip(self.submitted(executor, shards), shards, strict=True):
            outcomes = self.outcomes(executor, handle, JobFacts())
            assert ordinals(outcomes) == list(range(shard.records))
            ids = [record_id for outcome in outcomes for record_id in outcome.records.record_ids]
            assert ids == sorted(ids, key=lambda name: int(name.split("-")[1]))

    def test_an_empty_text_is_rejected_and_the_rest_embedded(
        self, executor: Executor, shards: list[Shard]
    ) -> None:
        outcomes = self.outcomes(executor, self.submitted(executor, shards)[0], JobFacts())
        rejections = [rejection for outcome in outcomes for rejection in outcome.records.rejections]
        assert [(rejection.source_row, rejection.code) for rejection in rejections] == [
            (EMPTY_ROW, "empty_text")
        ]
        vectors = np.concatenate([outcome.vectors for outcome in outcomes])
        assert len(vectors) == SHARD_RECORDS - 1
        assert np.isfinite(vectors).all()

    def test_the_same_shard_gives_the_same_vectors(self, executor: Executor, shards: list[Shard]) -> None:
        handle = self.submitted(executor, shards)[1]
        first, second = (
            np.concatenate([outcome.vectors for outcome in self.outcomes(executor, handle, JobFacts())])
            for _ in range(2)
        )
        assert np.allclose(first, second, atol=1e-5)

    def test_facts_are_known_once_collected(self, executor: Executor, shards: list[Shard]) -> None:
        facts = JobFacts()
        outcomes = self.outcomes(executor, self.submitted(executor, shards)[0], facts)
        assert facts.model and facts.dtype
        assert facts.dimensions == outcomes[0].vectors.shape[1]

    def test_submitting_again_with_the_same_token_starts_nothing_new(
        self, executor: Executor, shards: list[Shard]
    ) -> None:
        jobs = [executor.prepare(shard, 1) for shard in shards]
        first, second = (executor.submit(jobs, token="once") for _ in range(2))
        assert [handle.job_id for handle in first] == [handle.job_id for handle in second]

    def test_every_job_has_a_state(self, executor: Executor, shards: list[Shard]) -> None:
        handles = self.submitted(executor, shards)
        statuses = executor.poll(handles)
        assert [status.handle for status in statuses] == handles
        assert all(isinstance(status.state, JobState) for status in statuses)

    def test_cancelling_twice_is_no_error(self, executor: Executor, shards: list[Shard]) -> None:
        handle = self.submitted(executor, shards)[0]
        executor.cancel(handle)
        executor.cancel(handle)

    def test_the_fingerprint_follows_the_settings(
        self, executor: Executor, settings: PipelineSettings
    ) -> None:
        assert executor.fingerprint() == self.make(settings).fingerprint()
        prompted = settings.model.model_copy(update={"prompt": "query: "})
        assert (
            self.make(settings.model_copy(update={"model": prompted})).fingerprint() != executor.fingerprint()
        )
        slower = settings.shards.model_copy(update={"records": 3})
        assert (
            self.make(settings.model_copy(update={"shards": slower})).fingerprint() == executor.fingerprint()
        )

    def test_limits_are_numbers_or_none(self, executor: Executor) -> None:
        limits = executor.limits
        assert limits.min_records >= 0
        assert all(limit is None or limit > 0 for limit in (limits.jobs, limits.records, limits.bytes))


def ordinals(outcomes: list[Outcomes]) -> list[int]:
    """The ordinals of all records, rejected ones too, in the order in which they came."""
    found: list[int] = []
    for outcome in outcomes:
        records = outcome.records
        found += sorted([*records.ordinals, *(rejection.ordinal for rejection in records.rejections)])
    return found
