"""What becomes of a job's objects, however it ended: every record asked for is settled or tried again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.executors.base import JobState
from batch_assets.executors.jobs import JobDescription, RequestFile
from batch_assets.executors.sagemaker.answers import AnswerFormat
from batch_assets.executors.sagemaker.fetching import fetch_results
from batch_assets.executors.sagemaker.places import requests_folder, results_folder
from batch_assets.executors.service_jobs import ResultsNotReady, ServiceJob, UnexpectedOutput
from batch_assets.retry_policy import FREE_CUTS
from batch_assets.settings.sagemaker import SageMakerExecutorSettings
from batch_assets.storage import open_storage
from batch_assets_tests.executors.bedrock.builders import records_of, unit

WIDTH = 8
REASON = "ClientError: See job logs for more information"


class Job:
    """A job of objects of these `sizes`, of which those in `done` have a result, somewhere below its output path."""

    def __init__(self, root: Path, sizes: list[int], done: set[int], **fields: Any) -> None:
        self.folder = requests_folder("g0001-00000", 1, "abc")
        files = [RequestFile(f"{self.folder}/o-{n}.jsonl", size, 1, "") for n, size in enumerate(sizes)]
        self.records = sum(sizes)
        self.description = JobDescription(
            pipeline="texts", shard="g0001-00000", fence=1, attempt=2, kind="batch", fingerprint="", digest="",
            staging="", files=files, records=self.records, bytes=1, bound_usd=7.0, ordinals=[(0, self.records - 1)],
            **fields,
        )  # fmt: skip
        self.root = root
        first = 0
        for number, size in enumerate(sizes):
            if number in done:
                self.put(number, list(range(first, first + size)))
            first += size

    def put(self, number: int, ordinals: list[int], output: Any = None) -> None:
        path = self.root / results_folder(self.description) / "deeper" / f"o-{number}.jsonl.out"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [{"id": f"{n:011d}", "SageMakerOutput": output or unit(n, WIDTH)} for n in ordinals]
        path.write_bytes(b"\n".join(map(orjson.dumps, lines)))

    def fetch(
        self, rows: JobRows, state: JobState | None, message: str = REASON, *, final: bool = True
    ) -> JobFacts:
        options = SageMakerExecutorSettings(
            type="sagemaker", model_name="m", usd_per_hour=3600, instance_count=2
        )
        executor: Any = SimpleNamespace(
            staging=open_storage(str(self.root)), options=options, answer_format=lambda rows: AnswerFormat()
        )
        told = None
        if state is not None:
            told = ServiceJob("n", "n", "m", state, message, ended_at=30.0, began_at=20.0)
        facts = JobFacts()
        fetch_results(executor, self.description, told, rows, facts, final=final)
        return facts


def codes(rows: JobRows) -> dict[int, str]:
    """Why each record that has no answer has none."""
    return {one.row: one.code for one in rows.outcomes(records_of([""] * rows.records)).failures}


def test_of_a_failed_job_what_is_finished_stays_and_the_rest_is_cut(tmp_path: Path) -> None:
    job = Job(tmp_path, [3, 1, 1, 2], done={3}, narrowed={4: 2})
    with JobRows(7) as rows:
        facts = job.fetch(rows, JobState.FAILED)
        assert facts.narrowed
        assert facts.cost_usd == 20
        # Alone in its object, and in a failed one for the third time: that is the record that breaks it.
        assert codes(rows) == dict.fromkeys(range(4), "object_failed") | {4: "record_refused"}
        assert rows.ordinals_again("object_failed").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("done", "state", "message", "code"),
    [
        (set[int](), JobState.FAILED, REASON, "object_failed"),
        (set[int](), JobState.FAILED, "", "object_failed"),
        (set[int](), JobState.FAILED, "CapacityError: no capacity", "job_failed"),
        ({0}, JobState.FAILED, "InternalServerError: please try again", "job_failed"),
        (set[int](), JobState.STOPPED, "", "job_stopped"),
        (set[int](), None, "", "job_lost"),
        ({0}, JobState.SUCCEEDED, "", "missing_result"),
    ],
)
def test_an_attempt_is_counted_where_nothing_is_learnt(
    tmp_path: Path, done: set[int], state: JobState | None, message: str, code: str
) -> None:
    job = Job(tmp_path, [2, 1], done)
    with JobRows(3) as rows:
        facts = job.fetch(rows, state, message)
        assert not facts.narrowed
        assert set(codes(rows).values()) == {code}
        assert facts.cost_usd == (7.0 if state is None else 20)


def test_cutting_is_free_only_so_often(tmp_path: Path) -> None:
    job = Job(tmp_path, [2, 1], {1}, narrowed={0: FREE_CUTS})
    with JobRows(3) as rows:
        assert not job.fetch(rows, JobState.FAILED).narrowed


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED])
def test_results_may_be_late(tmp_path: Path, state: JobState) -> None:
    job = Job(tmp_path, [2, 2], {0})
    with JobRows(4) as rows:
        with pytest.raises(ResultsNotReady, match="1 of its 2 objects"):
            job.fetch(rows, state, final=False)
        job.put(1, [2, 3])
        job.fetch(rows, state, final=False)
        assert rows.counts.embedded == 4


def test_a_flood_is_not_read(tmp_path: Path) -> None:
    job = Job(tmp_path, [2], set())
    job.put(0, [0, 1], output=[unit(0, 1000)] * 200)
    with JobRows(2) as rows, pytest.raises(UnexpectedOutput) as refused:
        job.fetch(rows, JobState.SUCCEEDED)
    assert "bytes for 2 records" in str(refused.value)
    assert "was not read" in str(refused.value)
    assert "pooling" in str(refused.value)


def test_neither_prefix_begins_the_other(tmp_path: Path) -> None:
    requests, results = (
        f"{Job(tmp_path, [1], set()).folder}/",
        results_folder(Job(tmp_path, [1], set()).description),
    )
    assert not requests.startswith(results) and not f"{results}/".startswith(requests)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    done=st.sets(st.integers(0, 4)),
    short=st.sets(st.integers(0, 4)),
    state=st.sampled_from(
        [JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED, JobState.EXPIRED, JobState.PARTIAL, None]
    ),
    message=st.sampled_from([REASON, "", "CapacityError: no"]),
)
def test_every_record_is_settled_or_tried_again(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    done: set[int],
    short: set[int],
    state: JobState | None,
    message: str,
) -> None:
    job = Job(tmp_path_factory.mktemp("job"), sizes, done)
    first = 0
    for number, size in enumerate(sizes):
        if number in done & short:
            job.put(number, list(range(first, first + size - 1)))
        first += size
    with JobRows(job.records + 1) as rows:
        job.fetch(rows, state, message)
        counts = rows.counts
        assert counts.unknown == 1  # the one that was not asked for
        assert counts.embedded + counts.failed + counts.again == job.records
        assert counts.embedded == sum(
            size - (number in short) for number, size in enumerate(sizes) if number in done
        )
