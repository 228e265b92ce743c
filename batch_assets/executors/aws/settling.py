"""What becomes of the records of a job that has ended, whichever service had it.

What lines of results say is in `sorting.py`; whether all files are there, and of which records no
line tells, each service's folder finds out.
"""

import numpy as np
import numpy.typing as npt

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.reason_codes import JOB_LOST
from batch_assets.executors.aws.results import Tally
from batch_assets.executors.jobs import JobDescription
from batch_assets.executors.service_jobs import ServiceJob
from batch_assets.plain_text import plain_logger
from batch_assets.storage import Storage, open_storage

SUFFIX = ".out"
"""What services put behind the name of a request file to name its results."""

LOST = (JOB_LOST, "the service does not know the job any more")
logger = plain_logger(__name__)


def begin(job: JobDescription, rows: JobRows) -> npt.NDArray[np.int64]:
    """Fail the records that were never sent, and forget what was said of those that were: their ordinals."""
    for ordinal, code, message in job.refused:
        rows.fail(ordinal, code, message, job.attempt)
    asked = np.fromiter(job.asked(), dtype=np.int64)
    rows.forget(asked)
    return asked


def result_place(staging: Storage, folder: str, service_job: ServiceJob | None) -> tuple[Storage, str]:
    """Where the results of a job lie: in this `folder` of the staging area, unless the service says otherwise."""
    told = service_job.results.rstrip("/") if service_job is not None else ""
    if told and told != f"{staging.uri}/{folder}":
        return open_storage(told), ""
    return staging, folder


def why_failed(service_job: ServiceJob) -> str:
    """The service's own words, if it has any."""
    return service_job.message or "the job failed, and the service does not say why"


def log_tally(job: JobDescription, asked: int, tally: Tally, *more: tuple[int, str]) -> None:
    """Say what came beside good answers."""
    for count, what in (
        *more,
        (tally.unreadable, "lines cannot be read"),
        (tally.foreign, "lines are of no record of the shard"),
        (tally.doubled, "lines tell what is known"),
    ):
        if count:
            logger.info(
                "shard %s, job %d: of %d records asked for, %d %s", job.shard, job.fence, asked, count, what
            )
