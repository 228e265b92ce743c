"""Where a pipeline's transform jobs lie in the staging area.

What is in the objects is written in `rendering.py`; what jobs are called, in `aws/names.py`.
"""

from batch_assets import paths
from batch_assets.executors.jobs import JobDescription
from batch_assets.storage import join_uri

_REQUESTS, _RESULTS = "/requests-", "/results-"


def requests_folder(shard: str, fence: int, own: str) -> str:
    """The folder that holds a job's input objects and nothing else; `own` keeps one rendering from another."""
    return f"{paths.job_folder(shard, fence)}{_REQUESTS}{own}"


def places(job: JobDescription) -> tuple[str, str]:
    """The URIs of a job's input and output, as the service is told them."""
    return join_uri(job.staging, job.folder) + "/", join_uri(job.staging, results_folder(job))


def results_folder(job: JobDescription) -> str:
    """Where a job writes: beside its input. An S3 prefix is a mere beginning of keys, so neither begins the other."""
    head, _, own = job.folder.rpartition(_REQUESTS)
    return f"{head}{_RESULTS}{own}"
