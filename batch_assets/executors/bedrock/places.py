"""Where a pipeline's jobs lie in the staging area.

What is in the files is written in `rendering.py`; what jobs are called, in `aws/names.py`.
"""

from collections.abc import Sequence

from batch_assets import paths
from batch_assets.executors.jobs import JobDescription
from batch_assets.storage import Storage, join_uri


def requests_folder(shard: str, fence: int, own: str) -> str:
    """The folder that holds a job's request files; `own` keeps one rendering from another."""
    return f"{paths.job_folder(shard, fence)}/requests-{own}"


def results_folder(shard: str, fence: int) -> str:
    """Where a job of one shard writes."""
    return f"{paths.job_folder(shard, fence)}/results"


def folders(name: str, jobs: Sequence[JobDescription]) -> tuple[str, str]:
    """Where the requests of a submission lie and where its results go; never one within the other."""
    if len(jobs) == 1:
        return jobs[0].folder, results_folder(jobs[0].shard, jobs[0].fence)
    # Named as the first job's folder is too: nobody else's files come into it.
    first = min(jobs, key=lambda job: (job.shard, job.fence))
    number, own = (text.rsplit("-", 1)[-1] for text in (name, first.folder))
    folder = f"jobs/pools/{number}-{own}"
    return f"{folder}/requests", f"{folder}/results"


def places(name: str, jobs: Sequence[JobDescription]) -> tuple[str, str]:
    """The same as URIs, as the service is told them."""
    requests, results = folders(name, jobs)
    staging = jobs[0].staging  # where the requests were uploaded, whatever the settings say by now
    return join_uri(staging, requests) + "/", join_uri(staging, results) + "/"


def gather(staging: Storage, jobs: Sequence[JobDescription], folder: str) -> None:
    """Copy the request files of small jobs into one folder: the service takes a folder as a job."""
    for job in jobs:
        for file in job.files:
            staging.copy(file.path, f"{folder}/{file.path.rsplit('/', 1)[-1]}")
