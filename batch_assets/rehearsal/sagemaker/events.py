"""What EventBridge tells of a transform job: nearly what DescribeTransformJob says.

AWS's page shows times as ISO text, events seen in practice have milliseconds: here both occur.
"""

from datetime import UTC, datetime
from typing import Any

from batch_assets.rehearsal.events import envelope, iso_time
from batch_assets.rehearsal.sagemaker.job import TransformJob

TIMES = ("CreationTime", "TransformStartTime", "TransformEndTime")


def event_of(job: TransformJob, now: float) -> dict[str, Any]:
    """The event of the job's present state."""
    detail = {name: value for name, value in job.described().items() if value is not None}
    for name in TIMES:
        if name in detail:
            detail[name] = _iso(detail[name]) if job.number % 2 else int(detail[name] * 1000)
    detail["Tags"] = {tag["Key"]: tag["Value"] for tag in job.request.get("Tags", [])}
    return envelope(
        "aws.sagemaker", "SageMaker Transform Job State Change", job.region, job.arn, iso_time(now), detail
    )


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
