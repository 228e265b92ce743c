"""The environment of a job's process: what its image, definition and submission give, and what AWS adds."""

from batch_assets.rehearsal.batch.describing import COMPUTE_ENVIRONMENT
from batch_assets.rehearsal.batch.job import BatchJob
from batch_assets.rehearsal.batch.processes import image_environment

KEYS = {
    "AWS_ACCESS_KEY_ID": "rehearsal",
    "AWS_SECRET_ACCESS_KEY": "rehearsal",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def container_environment(job: BatchJob, endpoint: str) -> dict[str, str]:
    """All variables of the job's next attempt."""
    found = image_environment() | KEYS | {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": job.region,
        "AWS_DEFAULT_REGION": job.region,
    }  # fmt: skip
    found |= job.work.environment
    found |= {
        "AWS_BATCH_JOB_ID": job.id,
        "AWS_BATCH_JOB_ATTEMPT": str(len(job.attempts) + 1),
        "AWS_BATCH_JQ_NAME": job.queue,
        "AWS_BATCH_CE_NAME": COMPUTE_ENVIRONMENT,
    }
    if job.parent:
        found["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job.index)
        found["AWS_BATCH_JOB_ARRAY_SIZE"] = str(len(job.parent.children))
    return found
