"""Events of all services say of which job they are; what is none of theirs is no event."""

import pytest

from batch_assets.executors.aws.events import job_of

ARN = "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/abcdefghijkl"


@pytest.mark.parametrize(
    ("detail", "job", "under_way"),
    [
        ({"batchJobArn": ARN, "status": "Scheduled"}, ARN, True),
        ({"batchJobArn": ARN, "status": "PartiallyCompleted"}, ARN, False),
        ({"status": "Expired"}, ARN, False),
        (
            {"TransformJobName": "a-b", "TransformJobStatus": "InProgress", "CreationTime": 1696427182554},
            "a-b",
            True,
        ),
        ({"TransformJobName": "a-b", "TransformJobStatus": "Failed"}, "a-b", False),
        ({"jobId": "1234:7", "status": "FAILED", "jobName": "x"}, "1234", False),
        ({"jobId": "1234", "status": "RUNNABLE", "jobName": "x"}, "1234", True),
    ],
)
def test_events_name_the_job(detail: dict[str, object], job: str, under_way: bool) -> None:
    assert job_of({"detail": detail, "resources": [ARN]}) == (job, under_way)


def test_what_is_no_event() -> None:
    for event in ({}, {"detail": 7}, {"detail": {}, "resources": []}):
        with pytest.raises((KeyError, TypeError, IndexError, AttributeError)):
            job_of(event)
