"""What EventBridge tells of a Bedrock job: dates in the two forms that AWS's own example has."""

from datetime import UTC, datetime
from typing import Any

from batch_assets.rehearsal.account import ACCOUNT
from batch_assets.rehearsal.events import envelope
from batch_assets.rehearsal.job import Job
from batch_assets.rehearsal.models import model_arn


def event_of(job: Job, now: float) -> dict[str, Any]:
    """The event of the job's present state."""
    created = datetime.fromtimestamp(job.submitted, UTC)
    hour = created.strftime("%I").lstrip("0")
    return envelope(
        "aws.bedrock",
        "Batch Inference Job State Change",
        job.region,
        job.arn,
        datetime.fromtimestamp(now, UTC).strftime("%a %b %d %H:%M:%S UTC %Y"),
        {
            "version": "0.0",
            "accountId": ACCOUNT,
            "batchJobName": job.name,
            "batchJobArn": job.arn,
            "batchModelId": model_arn(job.request["modelId"], job.region),
            "status": job.status,
            "failureMessage": job.message or "",
            "creationTime": f"{created:%b} {created.day}, {created.year}, {hour}:{created:%M:%S %p}",
        },
    )
