"""What every executor promises, by the calls that a run makes.

A new one subclasses `RunnerContract` or `ResultsContract` and says how it is made; one whose workers commit takes
`ServiceContract`, and also says how a shard gets embedded.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.marker import read_marker
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.errors import ConfigurationError
from batch_assets.executors.base import Executor, ShardRunner
from batch_assets.executors.jobs import JobDescription
from batch_assets.executors.service_jobs import BatchService, Order, ServiceJob, ServiceJobs
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import OutputSettings, PipelineSettings, ShardSettings
from batch_assets.settings.source import SourceSettings
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.plan_files import write_plan
from batch_assets.sharding.planner import plan_generation
from batch_assets.sharding.reading import read_shard
from batch_assets.storage import open_storage
from batch_assets.worker.attempt import Attempt, Processed, ShardRun, Step, Written, follow
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.waiting import wait_until

RECORDS, SHARD_RECORDS, EMPTY_ROW = 60, 25, 7


@dataclass(frozen=True)
class Embedded:
    """What became of a shard: row i of `vectors` is that of source row `rows[i]`, whose record is `ids[i]`."""

    ids: list[str]
    rows: list[int]
    vectors: npt.NDArray[np.float32]
    rejected: dict[int, str]
    facts: JobFacts

    @classmethod
    def of(cls, batches: Sequence[Outcomes], facts: JobFacts) -> "Embedded":
        assert not any(outcomes.failures for outcomes in batches)
        kept = [(outcomes.records, place) for outcomes in batches for place in outcomes.rows.tolist()]
        return cls(
            [records.record_ids[place] for records, place in kept],
            [records.source_rows[place] for records, place in kept],
            np.concatenate([outcomes.vectors for outcomes in batches]),
            {each.source_row: each.code for outcomes in batches for each in outcomes.records.rejections},
            facts,
        )

    @classmethod
    def committed(cls, settings: PipelineSettings, shard: Shard, fence: int) -> "Embedded":
        """What our worker has committed under the fence."""
        storage = open_storage(settings.output.root)
        found = read_marker(storage, shard.key)
        assert found is not None and found[0].fence == fence
        rows, failures = (
            pl.read_parquet(storage.read(file.path)) for file in (found[0].embeddings, found[0].failures)
        )
        vectors = rows["embedding"].to_numpy().astype(np.float32)
        rejected = dict(zip(failures["source_row"], failures["error_code"], strict=True))
        facts = JobFacts(model=found[0].model, dtype=found[0].dtype, dimensions=found[0].dimensions)
        return cls(rows["record_id"].to_list(), rows["source_row"].to_list(), vectors, rejected, facts)


class ExecutorContract(ABC):
    """What they all promise; subclasses say how one is made, and how a shard gets embedded."""

    @abstractmethod
    def make(self, settings: PipelineSettings) -> Executor: ...

    @abstractmethod
    def embedded(self, settings: PipelineSettings, shard: Shard, attempt: int = 1) -> Embedded: ...

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

    def test_every_record_comes_out_once_and_in_order(
        self, settings: PipelineSettings, shards: list[Shard]
    ) -> None:
        rows: list[int] = []
        for shard in shards:
            found = self.embedded(settings, shard)
            assert found.rows == sorted(found.rows)
            assert found.ids == [f"record-{row}" for row in found.rows]
            rows += [*found.rows, *found.rejected]
        assert sorted(rows) == list(range(RECORDS))

    def test_an_empty_text_is_rejected_and_the_rest_embedded(
        self, settings: PipelineSettings, shards: list[Shard]
    ) -> None:
        found = self.embedded(settings, shards[0])
        assert found.rejected == {EMPTY_ROW: "empty_text"}
        assert len(found.vectors) == SHARD_RECORDS - 1
        assert np.isfinite(found.vectors).all()
        assert found.facts.model and found.facts.dtype
        assert found.facts.dimensions == found.vectors.shape[1]

    def test_the_same_shard_gives_the_same_vectors(
        self, settings: PipelineSettings, shards: list[Shard]
    ) -> None:
        first, second = (self.embedded(settings, shards[1], attempt).vectors for attempt in (1, 2))
        assert np.allclose(first, second, atol=1e-5)

    def test_the_fingerprint_follows_the_settings(self, settings: PipelineSettings) -> None:
        fingerprint = self.make(settings).fingerprint()
        assert self.make(settings).fingerprint() == fingerprint
        prompted = settings.model.model_copy(update={"prompt": "query: "})
        assert self.make(settings.model_copy(update={"model": prompted})).fingerprint() != fingerprint
        slower = settings.shards.model_copy(update={"records": 3})
        assert self.make(settings.model_copy(update={"shards": slower})).fingerprint() == fingerprint

    def test_limits_are_numbers_or_none(self, settings: PipelineSettings) -> None:
        limits = self.make(settings).limits
        assert limits.min_records >= 0
        assert all(limit is None or limit > 0 for limit in (limits.jobs, limits.records, limits.bytes))


class RunnerContract(ExecutorContract):
    """What a shard runner promises: our worker computes and commits, for as long as somebody iterates over it."""

    @abstractmethod
    def make(self, settings: PipelineSettings) -> ShardRunner: ...

    def run(self, settings: PipelineSettings, shard: Shard, attempt: int = 1) -> ShardRun:
        runner = self.make(settings)
        told = Attempt(
            settings=settings,
            shard=shard,
            fence=attempt,
            number=attempt,
            fingerprint=runner.fingerprint(),
            executor=runner.kind,
            job=f"{shard.key}-{attempt}",
            outdated_fence=attempt - 1,
        )
        return runner.run(told, open_storage(settings.output.root))

    def embedded(self, settings: PipelineSettings, shard: Shard, attempt: int = 1) -> Embedded:
        follow(self.run(settings, shard, attempt))
        return Embedded.committed(settings, shard, attempt)

    def test_every_record_is_told_of_and_nothing_is_committed_before_the_last_step(
        self, settings: PipelineSettings, shards: list[Shard]
    ) -> None:
        told = 0

        def heed(step: Step) -> None:
            nonlocal told
            told += step.records if isinstance(step, Processed) else 0
            assert read_marker(open_storage(settings.output.root), shards[0].key) is None

        marker = follow(self.run(settings, shards[0]), heed)
        assert told == shards[0].records
        found = read_marker(open_storage(settings.output.root), shards[0].key)
        assert found is not None and found[0] == marker

    @pytest.mark.parametrize("written", [False, True], ids=["at the first step", "before the commit"])
    def test_a_run_that_is_closed_commits_nothing_and_leaves_no_unfinished_file(
        self, settings: PipelineSettings, shards: list[Shard], written: bool
    ) -> None:
        run = self.run(settings, shards[0])
        step = next(run)
        while written and not isinstance(step, Written):
            step = next(run)
        run.close()
        folder = Path(settings.output.root) / "shards" / shards[0].key
        # Hidden ones are still being written; whole ones go with the clean-up.
        wait_until(lambda: written or not list(folder.iterdir()), "a closed run leaves files")
        assert not (folder / "shard.json").exists()
        assert self.embedded(settings, shards[0], 2).rows

    def test_what_is_committed_already_is_not_embedded_again(
        self, settings: PipelineSettings, shards: list[Shard]
    ) -> None:
        first = follow(self.run(settings, shards[0]))
        runner = self.make(settings)
        again = Attempt(settings, shards[0], 2, 1, first.fingerprint, runner.kind, "again")
        assert follow(runner.run(again, open_storage(settings.output.root))) == first

    def test_a_root_that_was_made_anew_gets_nothing(
        self, settings: PipelineSettings, shards: list[Shard]
    ) -> None:
        runner, storage = self.make(settings), open_storage(settings.output.root)
        storage.create("pipeline.json", b'{"deployment": "the second"}')
        told = Attempt(
            settings, shards[0], 1, 1, runner.fingerprint(), runner.kind, "late", deployment="the first"
        )
        with pytest.raises(ConfigurationError, match="was removed since"):
            follow(runner.run(told, storage))
        assert read_marker(storage, shards[0].key) is None


class ServiceContract(ExecutorContract):
    """What a service computes."""

    @abstractmethod
    def make(self, settings: PipelineSettings) -> ServiceJobs: ...

    def submitted(self, executor: ServiceJobs, shard: Shard, attempt: int = 1) -> tuple[JobDescription, str]:
        """A job of the shard, and its id at the service."""
        # What an earlier attempt has committed does not count: the shard is embedded again.
        job = executor.render(shard, Order(fence=attempt, attempt=attempt, outdated_fence=attempt - 1))
        return job, executor.submit([job], *executor.submission_name([job.key]))

    def ended(self, executor: ServiceJobs, job_id: str) -> ServiceJob:
        """The job, when it has ended."""

        def look() -> ServiceJob:
            found = executor.look_up(job_id)
            assert found is not None
            return found

        wait_until(lambda: not look().active, "the job does not end")
        return look()

    def test_the_same_submission_starts_nothing_new(
        self, settings: PipelineSettings, shards: list[Shard]
    ) -> None:
        executor = self.make(settings)
        job, first = self.submitted(executor, shards[0])
        assert executor.submit([job], *executor.submission_name([job.key])) == first

    def test_a_job_is_found_by_its_id_and_by_its_name(
        self, settings: PipelineSettings, shards: list[Shard]
    ) -> None:
        executor = self.make(settings)
        job, job_id = self.submitted(executor, shards[0])
        found, named = executor.look_up(job_id), executor.find(executor.submission_name([job.key])[1], [job])
        assert found is not None and named is not None
        assert found.id == named.id == job_id
        assert [each.id for each in executor.own_jobs()] == [job_id]

    def test_stopping_twice_is_no_error(self, settings: PipelineSettings, shards: list[Shard]) -> None:
        executor = self.make(settings)
        _, job_id = self.submitted(executor, shards[0])
        executor.stop(job_id)
        executor.stop(job_id)


class ResultsContract(ServiceContract):
    """What a service computes, and its results are fetched."""

    @abstractmethod
    def make(self, settings: PipelineSettings) -> BatchService: ...

    def embedded(self, settings: PipelineSettings, shard: Shard, attempt: int = 1) -> Embedded:
        executor, facts = self.make(settings), JobFacts()
        job, job_id = self.submitted(executor, shard, attempt)
        found = self.ended(executor, job_id)
        with JobRows(shard.records) as rows:
            executor.fetch(job, found, rows, facts, final=True)
            return Embedded.of([rows.outcomes(records) for records in read_shard(settings, shard)], facts)
