"""What EventBridge tells of a job, array or child: nearly what DescribeJobs says. The submission itself is not told."""

from typing import Any

from batch_assets.rehearsal.batch.describing import detail, job_arn
from batch_assets.rehearsal.batch.job import BatchJob
from batch_assets.rehearsal.events import envelope, iso_time


def event_of(job: BatchJob, now: float) -> dict[str, Any]:
    """The event of the job's present state."""
    return envelope(
        "aws.batch", "Batch Job State Change", job.region, job_arn(job), iso_time(now), detail(job)
    )
