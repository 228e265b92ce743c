"""Which jobs ListJobs lists: by queue or array, by state or by one filter, in pages."""

from collections.abc import Mapping, Sequence
from typing import Any

from batch_assets.rehearsal.batch.job import BatchJob
from batch_assets.rehearsal.batch.jobs import BatchJobs
from batch_assets.rehearsal.batch.submission import refused
from batch_assets.rehearsal.paging import page

MOST = 1_000
MOST_FILTERED = 100
FILTERS = ("JOB_NAME", "JOB_DEFINITION", "BEFORE_CREATED_AT", "AFTER_CREATED_AT", "SHARE_IDENTIFIER")


def choose(jobs: BatchJobs, given: Mapping[str, Any], region: str) -> list[BatchJob]:
    """The jobs that are asked for; raises ServiceError."""
    filters = given.get("filters", [])
    if "arrayJobId" in given:
        array = jobs.find(given["arrayJobId"])
        found = array.children if array else []
    elif "jobQueue" in given:
        queue = given["jobQueue"].rsplit("/", 1)[-1]
        found = [job for job in jobs.all() if job.queue == queue and jobs.is_kept(job)]
    else:
        raise refused("One of jobQueue, arrayJobId and multiNodeJobId must be given")
    found = [job for job in found if job.region == region]
    if not filters or "arrayJobId" in given:  # filters do not apply to children
        status = given.get("jobStatus", "RUNNING")
        return [job for job in found if job.status == status]
    if len(filters) > 1:
        raise refused("Only one filter can be used at a time")
    name, values = filters[0].get("name"), filters[0].get("values", [])
    if name not in FILTERS or not values:
        raise refused(f"Filter {name} with {values} is not supported")
    return [job for job in found if _passes(job, name, values)]


def _passes(job: BatchJob, name: str, values: Sequence[str]) -> bool:
    if name == "JOB_NAME":
        return any(_is_like(job.name, value) for value in values)
    if name == "JOB_DEFINITION":
        definition = job.definition
        return any(
            value in (definition.arn, f"{definition.name}:{definition.revision}")
            or _is_like(definition.name, value)
            for value in values
        )
    if name == "SHARE_IDENTIFIER":
        return job.request.get("shareIdentifier") in values
    try:
        moment = int(values[0])
    except ValueError as error:
        raise refused(f"{name} needs milliseconds, was {values[0]}") from error
    created = int(job.created * 1000)
    return created < moment if name.startswith("BEFORE") else created > moment


def _is_like(text: str, asked: str) -> bool:
    text, asked = text.lower(), asked.lower()
    return text.startswith(asked[:-1]) if asked.endswith("*") else text == asked


def paged(
    found: Sequence[BatchJob], given: Mapping[str, Any], *, by_index: bool
) -> tuple[list[BatchJob], str | None]:
    """A page of them, the newest first; children by their index. Raises ServiceError."""
    most = MOST_FILTERED if given.get("filters") else MOST
    size = given.get("maxResults", most)
    if not 1 <= size <= most:
        raise refused(f"maxResults must be between 1 and {most}, was {size}")

    def position(job: BatchJob) -> tuple[Any, ...]:
        return (job.index or 0,) if by_index else (job.created, job.order)

    try:
        return page(found, position, size, given.get("nextToken"), descending=not by_index)
    except ValueError as error:
        raise refused("nextToken is invalid") from error
