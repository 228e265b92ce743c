"""The results of a job that has ended: found, counted against the manifest and the requests, joined.

What a line of a result file means is in `results.py`. Here it is decided whether all files are
there, and what becomes of a record of which no line tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from batch_assets import paths
from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.reason_codes import JOB_EXPIRED, JOB_FAILED, JOB_STOPPED, MISSING, NOT_PROCESSED
from batch_assets.executors.aws.results import Tally
from batch_assets.executors.aws.settling import (
    LOST,
    SUFFIX,
    begin,
    log_tally,
    result_place,
    why_failed,
)
from batch_assets.executors.aws.sorting import BAD_OUTPUT
from batch_assets.executors.base import JobState
from batch_assets.executors.bedrock.pipeline import BedrockPipeline
from batch_assets.executors.bedrock.places import results_folder
from batch_assets.executors.bedrock.results import ManifestCounts, read_manifest, read_results
from batch_assets.executors.jobs import JobDescription
from batch_assets.executors.service_jobs import ResultsNotReady, ServiceJob
from batch_assets.plain_text import plain_logger
from batch_assets.storage import Storage

# Of a record that the job has not come to, by how the job ended.
_UNTOLD = {
    JobState.PARTIAL: (NOT_PROCESSED, "the job's time was up before the record's turn"),
    JobState.STOPPED: (JOB_STOPPED, "the job was stopped before the record's turn"),
    JobState.EXPIRED: (JOB_EXPIRED, "the job never began before its time was up"),
}
logger = plain_logger(__name__)


@dataclass
class ResultFiles:
    """What lies where the job writes: a result file for each request file, and the manifest."""

    storage: Storage
    results: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    manifest: ManifestCounts | None = None


def fetch_results(
    pipeline: BedrockPipeline,
    job: JobDescription,
    service_job: ServiceJob | None,
    rows: JobRows,
    facts: JobFacts,
    *,
    final: bool,
) -> None:
    """Settle every record of `job` by its results, or say that it is to be tried again.

    Raises ResultsNotReady where results may still come, unless this is the `final` look.
    """
    asked = begin(job, rows)
    state = service_job.state if service_job is not None else JobState.FAILED
    found = _find(pipeline, job, service_job)
    tally = Tally()
    if found is not None:
        tally = read_results(found.storage, found.results, rows, pipeline.family, job.attempt, job.first_id)
    left = rows.unknown(asked)
    whole = found is not None and not found.missing and found.manifest is not None
    if len(left) and not whole and not final and _may_come(state, service_job):
        what = "the manifest" if found is None or not found.missing else ", ".join(found.missing)
        raise ResultsNotReady(f"job {job.shard}-{job.fence} has ended, and {what} is not to be seen yet")
    code, message = _untold(state, service_job)
    for ordinal in left.tolist():
        rows.again(ordinal, code, message)
    _compare(job, found, tally, len(asked), len(left))
    # An answer that is of no use was paid for, and how many tokens it took is not known.
    unpriced = len(left) + rows.reasons_again().get(BAD_OUTPUT, 0)
    _count(pipeline, job, found, tally, unpriced, facts, state)


def _may_come(state: JobState, service_job: ServiceJob | None) -> bool:
    """Whether the service has processed anything that it should have written."""
    if state in (JobState.SUCCEEDED, JobState.PARTIAL):
        return True
    return state is JobState.STOPPED and bool(service_job and service_job.records)


def _find(
    pipeline: BedrockPipeline, job: JobDescription, service_job: ServiceJob | None
) -> ResultFiles | None:
    """List where the job writes: `<results>/<job id>/<request file>.out`; None where there is nothing."""
    # A pool's results lie elsewhere, and those of another deployment that had its own staging area.
    storage, prefix = result_place(pipeline.staging, results_folder(job.shard, job.fence), service_job)
    by_name: dict[str, list[str]] = {}
    for info in storage.list(prefix):
        by_name.setdefault(info.path.rsplit("/", 1)[-1], []).append(info.path)
    if not by_name:
        return None
    own = service_job.id.rsplit("/", 1)[-1] if service_job is not None else ""
    found = ResultFiles(storage)
    for file in job.files:
        name = file.path.rsplit("/", 1)[-1]
        path = _of_job(by_name.get(name + SUFFIX, ()), own)
        if path is None:
            found.missing.append(name + SUFFIX)
        else:
            found.results.append(path)
    # Jobs of an earlier output root at this place may have written below the same prefix; their requests had other
    # names, and all manifests have one: ours lies beside the results, or in the folder named after the job.
    beside = {path.rpartition("/")[0] for path in found.results}
    manifests = by_name.get(paths.RESULTS_MANIFEST, ())
    manifest = next((path for path in manifests if path.rpartition("/")[0] in beside), None) or _in_folder(
        manifests, own
    )
    if manifest is not None:
        found.manifest = read_manifest(storage.read(manifest))
    return found


def _of_job(candidates: Sequence[str], job_id: str) -> str | None:
    """The file in the folder named after the job; else the only one that there is."""
    return _in_folder(candidates, job_id) or next(iter(candidates), None)


def _in_folder(candidates: Sequence[str], job_id: str) -> str | None:
    return next((path for path in candidates if job_id and job_id in path.split("/")), None)


def _untold(state: JobState, service_job: ServiceJob | None) -> tuple[str, str]:
    if service_job is None:
        return LOST
    if state is JobState.FAILED:
        return JOB_FAILED, why_failed(service_job)
    return _UNTOLD.get(state, (MISSING, "the results have no line for this record"))


def _compare(job: JobDescription, found: ResultFiles | None, tally: Tally, asked: int, left: int) -> None:
    """Say where the manifest, the requests and the results do not agree."""
    where = f"shard {job.shard}, job {job.fence}"
    manifest = found.manifest if found is not None else None
    if manifest is not None and manifest.total is not None and manifest.total < job.records:
        logger.warning("%s: the manifest counts %d records, %d were sent", where, manifest.total, job.records)
    if found is not None:
        log_tally(job, asked, tally, (left, "have no readable result"))


def _count(
    pipeline: BedrockPipeline,
    job: JobDescription,
    found: ResultFiles | None,
    tally: Tally,
    unpriced: int,
    facts: JobFacts,
    state: JobState,
) -> None:
    """Tokens and dollars as the service reports them: by the manifest, else by the lines.

    Of records processed without a usable line (`unpriced`) only the bound is known; it counts, so that a
    budget is never passed by what cannot be seen.
    """
    tokens, answers = tally.input_tokens, tally.output_tokens
    manifest = found.manifest if found is not None else None
    pooled = found is not None and found.storage is not pipeline.staging
    told = manifest is not None and manifest.input_tokens is not None and not pooled
    if manifest is not None and told:
        tokens = max(tokens, manifest.input_tokens or 0)
        answers = max(answers, manifest.output_tokens or 0)
    cost = pipeline.cost(tokens, answers)
    if cost is not None and not told and unpriced and state in (JobState.SUCCEEDED, JobState.PARTIAL):
        cost += job.bound_usd * unpriced / max(job.records, 1)
    facts.add(tokens, answers, cost)
