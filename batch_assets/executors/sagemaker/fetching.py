"""The results of a transform job that has ended: found by listing, read, and what came of each input object.

An object's result is there as a whole or not at all. What a line of it means is in `results.py`;
here it is decided what becomes of a record of which no line tells.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.reason_codes import JOB_FAILED, JOB_STOPPED, MISSING
from batch_assets.embeddings.schema import EMBED
from batch_assets.executors.aws.results import Tally
from batch_assets.executors.aws.settling import (
    LOST,
    SUFFIX,
    begin,
    log_tally,
    result_place,
    why_failed,
)
from batch_assets.executors.base import JobState
from batch_assets.executors.jobs import JobDescription, RequestFile
from batch_assets.executors.sagemaker.answers import AnswerFormat
from batch_assets.executors.sagemaker.expectations import GO_ON, POOL
from batch_assets.executors.sagemaker.failures import may_be_the_data
from batch_assets.executors.sagemaker.pipeline import SageMakerPipeline
from batch_assets.executors.sagemaker.places import results_folder
from batch_assets.executors.sagemaker.prices import cost_of
from batch_assets.executors.sagemaker.results import read_results
from batch_assets.executors.service_jobs import ResultsNotReady, ServiceJob, UnexpectedOutput
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import is_free_cut, is_refused_alone
from batch_assets.storage import FileInfo, Storage

OBJECT_FAILED = "object_failed"
RECORD_REFUSED = "record_refused"

# What a vector can come to in a result object, at most, and how much more is beyond all expectation.
LINE_BYTES, NUMBER_BYTES, WIDEST, TOO_MUCH = 64, 24, 8192, 4
logger = plain_logger(__name__)


@dataclass(frozen=True)
class ObjectEnd:
    """One input object with its records' `ordinals`, ascending, and its result, if it has one."""

    file: RequestFile
    ordinals: npt.NDArray[np.int64]
    result: FileInfo | None


def fetch_results(
    pipeline: SageMakerPipeline,
    job: JobDescription,
    service_job: ServiceJob | None,
    rows: JobRows,
    facts: JobFacts,
    *,
    final: bool,
) -> None:
    """Settle every record of `job` by its results, or say that it is to be tried again.

    Raises ResultsNotReady where results may still come, unless this is the `final` look;
    UnexpectedOutput where they are none that the pipeline has asked for.
    """
    asked = begin(job, rows)
    state = service_job.state if service_job is not None else JobState.FAILED
    storage, objects = _objects(pipeline, job, service_job)
    done = [each for each in objects if each.result is not None]
    if len(done) < len(objects) and not final and _may_come(service_job):
        raise ResultsNotReady(
            f"job {job.shard}-{job.fence} has ended, and the results of {len(objects) - len(done)} of its "
            f"{len(objects)} objects are not to be seen yet"
        )
    # Whatever is in the results, they are paid for.
    facts.add(cost_usd=cost_of(pipeline.options, service_job, job.bound_usd))
    expected = pipeline.answer_format(rows)
    for each in done:
        _refuse_flood(storage, each, expected)
    tally = read_results(storage, [each.result for each in done if each.result], rows, expected)
    for each in done:
        for ordinal in rows.unknown(each.ordinals).tolist():
            rows.again(ordinal, MISSING, "the result file has no line for this record")
    failed = [each for each in objects if each.result is None]
    if state is JobState.FAILED and service_job is not None:
        attempts = pipeline.options.max_attempts
        facts.narrowed = _blame(job, service_job, failed, rows, attempts, others_succeeded=bool(done))
    else:
        code, message = _untold(state, service_job)
        for ordinal in _left(rows, failed):
            rows.again(ordinal, code, message)
    _report(job, tally, len(asked), len(done), len(objects))
    facts.add(tally.input_tokens, tally.output_tokens)


def _may_come(service_job: ServiceJob | None) -> bool:
    """Whether there may be results that are not to be seen yet.

    Of a failed job nobody tells which objects have succeeded: to take one for failed that was only
    late would be to pay for it again, and to blame its records.
    """
    if service_job is None or service_job.active:
        return True  # it has ended, by what was told before: these answers are from another moment
    if service_job.state is JobState.FAILED:
        return service_job.began_at is not None or may_be_the_data(service_job.message, began=True)
    return service_job.state is JobState.SUCCEEDED


def _objects(
    pipeline: SageMakerPipeline, job: JobDescription, service_job: ServiceJob | None
) -> tuple[Storage, list[ObjectEnd]]:
    """Every input object with its result. How results lie below the job's output path is not relied on."""
    # Those of another rendering of the same requests lie elsewhere.
    storage, prefix = result_place(pipeline.staging, results_folder(job), service_job)
    results = {info.path.rsplit("/", 1)[-1]: info for info in storage.list(prefix)}
    asked = np.fromiter(job.asked(), dtype=np.int64)
    ends = np.cumsum([file.records for file in job.files])[:-1]
    found = [
        ObjectEnd(file, ordinals, results.get(file.path.rsplit("/", 1)[-1] + SUFFIX))
        for file, ordinals in zip(job.files, np.split(asked, ends), strict=True)
    ]
    return storage, found


def _refuse_flood(storage: Storage, found: ObjectEnd, expected: AnswerFormat) -> None:
    """Raise UnexpectedOutput before reading what is far larger than so many vectors can be."""
    if found.result is None or expected.task != EMBED:
        return
    width = expected.width if expected.width and expected.dimensions is None else WIDEST
    records, size = found.file.records, found.result.size
    most = records * (LINE_BYTES + NUMBER_BYTES * width) + (found.file.bytes if expected.csv else 0)
    if size > TOO_MUCH * most:
        raise UnexpectedOutput(
            f"{storage.uri}/{found.result.path} has {size:,} bytes for {records:,} records, {size // records:,} for "
            f"each, and a vector of {width:,} numbers takes {LINE_BYTES + NUMBER_BYTES * width:,} at most; it was not "
            f"read. Such output holds a vector for each token, so the model has no pooling: {POOL}, {GO_ON}"
        )


def _blame(
    job: JobDescription,
    service_job: ServiceJob,
    failed: list[ObjectEnd],
    rows: JobRows,
    max_attempts: int,
    *,
    others_succeeded: bool,
) -> bool:
    """Say what becomes of the records of failed objects; whether that comes closer to an end.

    Where records may be what broke their objects, the next job has smaller objects. A record that is
    alone in its object, and has been in as many failed ones as there are attempts, is what broke them.
    """
    reason = why_failed(service_job)
    began = others_succeeded or service_job.began_at is not None
    if not may_be_the_data(service_job.message, began=began):
        for ordinal in _left(rows, failed):
            rows.again(ordinal, JOB_FAILED, reason)
        return False
    for each in failed:
        for ordinal in _left(rows, [each]):
            times = job.narrowed.get(ordinal, 0) + 1
            if is_refused_alone(each.file.records, times, max_attempts):
                told = f"its object has failed {times} times, at last with this record alone: {reason}"
                rows.fail(ordinal, RECORD_REFUSED, told, times)
            else:
                rows.again(ordinal, OBJECT_FAILED, reason)
    return is_free_cut(others_succeeded, max(job.narrowed.values(), default=0))


def _left(rows: JobRows, objects: list[ObjectEnd]) -> Iterator[int]:
    for each in objects:
        yield from rows.unknown(each.ordinals).tolist()


def _untold(state: JobState, service_job: ServiceJob | None) -> tuple[str, str]:
    if service_job is None:
        return LOST
    if state is JobState.STOPPED:
        return JOB_STOPPED, "the job was stopped, and a stopped job leaves no results"
    return MISSING, "the job is completed, and there is no result file of the record's object"


def _report(job: JobDescription, tally: Tally, asked: int, done: int, objects: int) -> None:
    if done < objects:
        missing = objects - done
        logger.info(
            "shard %s, job %d: %d of %d objects have no results", job.shard, job.fence, missing, objects
        )
    log_tally(job, asked, tally, (tally.again, "answers are of no use"))
