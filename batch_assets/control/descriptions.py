"""What jobs ask for, read again from beside their requests; one that is gone or damaged concerns its shard alone.

What stands in it is `executors/jobs.py`'s business.
"""

from collections.abc import Sequence
from functools import partial

from batch_assets import paths
from batch_assets.control.pipeline import Pipeline
from batch_assets.executors.jobs import JobDescription, read_description
from batch_assets.ledger.rows import JobRow
from batch_assets.plain_text import plain_logger
from batch_assets.storage.threads import map_in_order, threads_for

logger = plain_logger(__name__)


def try_description(pipeline: Pipeline, shard: str, fence: int) -> JobDescription | None:
    """What a job asks for; None where its description is gone, or cannot be read, which is said."""
    try:
        return read_description(pipeline.storage, shard, fence)
    except ValueError as error:
        where = f"{pipeline.storage.uri}/{paths.job_description(shard, fence)}"
        logger.warning(
            "%s is damaged (%s), so it is not known what that job asks for, and the shard's records that it asked for "
            "are asked for again; restore it from a copy first where that costs too much",
            where, error,
        )  # fmt: skip
        return None


def describe(pipeline: Pipeline, job: JobRow) -> JobDescription:
    """What a job asks for. Raises FileNotFoundError where its description is gone, damaged, or another job's."""
    found = _of_job(pipeline, job)
    if found is None:
        raise FileNotFoundError(f"{pipeline.storage.uri}/{paths.job_description(job.shard, job.fence)}")
    return found


def describe_all(pipeline: Pipeline, jobs: Sequence[JobRow]) -> list[JobDescription | None]:
    """The same of many jobs, in their order; None for those of which it is not known."""
    return list(map_in_order(partial(_of_job, pipeline), jobs, threads_for(pipeline.storage)))


def _of_job(pipeline: Pipeline, job: JobRow) -> JobDescription | None:
    found = try_description(pipeline, job.shard, job.fence)
    # One of another root, or of a root made anew, may have the same name: its requests are not the job's.
    return found if found is not None and found.digest == job.digest else None
