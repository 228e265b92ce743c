"""SageMaker's four calls for transform jobs, and its events, in this project's words.

Which call is made when is in `control/`; what a refusal means, in `service_errors.py`.
"""

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batch_assets.executors.aws.errors import error_code, error_message
from batch_assets.executors.aws.job_calls import JobCalls, pages, state_of
from batch_assets.executors.base import JobState
from batch_assets.executors.sagemaker.requests import data_processing
from batch_assets.executors.sagemaker.service_errors import IN_USE, explain_refusal, is_not_found
from batch_assets.executors.service_jobs import NameTaken, ServiceJob
from batch_assets.settings.sagemaker import SageMakerExecutorSettings

PAGE = 100  # the most that ListTransformJobs gives at once

# There is no queue: a job is in progress at once. Stopping still holds its instances.
STATES = {
    "InProgress": JobState.RUNNING,
    "Stopping": JobState.RUNNING,
    "Completed": JobState.SUCCEEDED,
    "Failed": JobState.FAILED,
    "Stopped": JobState.STOPPED,
}
UNDER_WAY = ("InProgress", "Stopping")
# Instances with local disks encrypt those by hardware, and refuse a key for a volume:
# Amazon SageMaker Developer Guide, "TransformResources", VolumeKmsKeyId.
_LOCAL_DISKS = re.compile(r"ml\.(g4dn|g5|g6e?|gr6|p3dn|p4de?|p5\w*|trn1n?|trn2|[a-z]\d+[a-z]*d[a-z]*)\.")


@dataclass
class SageMakerService(JobCalls):
    """Transform jobs with one model in one region. A job's id is its name."""

    service_name = "SageMaker"
    may_ask = "sagemaker:ListTransformJobs and sagemaker:DescribeTransformJob"
    may_stop = "sagemaker:StopTransformJob"

    options: SageMakerExecutorSettings
    region: str

    def create(self, name: str, requests: str, results: str) -> str:
        """Start a job that reads the objects under `requests` (an S3 URI that ends in /); its id.

        Raises SlotsFull, Unanswered (it may or may not exist now), SubmissionRefused, NameTaken.
        """
        try:
            self.client_once.create_transform_job(**job_request(self.options, name, requests, results))
        except Exception as error:
            if error_code(error) == IN_USE:
                raise NameTaken(error_message(error)) from error
            raise explain_refusal(error, self.options, self.region) from error
        return name

    def _describe(self, job_id: str) -> ServiceJob:
        return _service_job(self.client.describe_transform_job(TransformJobName=job_id))

    def _list(self, wanted: Mapping[str, Any]) -> Iterator[ServiceJob]:
        call = {"MaxResults": PAGE, "SortBy": "CreationTime", "SortOrder": "Descending", **wanted}
        found = pages(self.client.list_transform_jobs, call, "TransformJobSummaries", "NextToken")
        return map(_service_job, found)

    def _named(self, text: str) -> Mapping[str, Any]:
        return {"NameContains": text}

    def _stop(self, job_id: str) -> None:
        self.client.stop_transform_job(TransformJobName=job_id)

    def is_unknown(self, error: Exception) -> bool:
        return is_not_found(error)

    def is_over(self, error: Exception) -> bool:
        return error_code(error) == "ValidationException" or is_not_found(error)

    def find(self, name: str) -> ServiceJob | None:
        return self.get(name)

    def jobs_since(self, since: float | None) -> list[ServiceJob]:
        """Every job of the account in this region created after `since`; without it those that have not ended."""
        if since is None:
            return [job for status in UNDER_WAY for job in self.listed({"StatusEquals": status})]
        return self.listed({"CreationTimeAfter": datetime.datetime.fromtimestamp(since, datetime.UTC)})


def job_request(options: SageMakerExecutorSettings, name: str, requests: str, results: str) -> dict[str, Any]:
    """The fields of CreateTransformJob; what the settings leave open is left to the service."""
    client = {
        "InvocationsTimeoutInSeconds": options.invocation_timeout_seconds,
        "InvocationsMaxRetries": options.invocation_retries,
    }
    client = {field: value for field, value in client.items() if value is not None}
    output: dict[str, Any] = {
        "S3OutputPath": results,
        "Accept": options.content_type,
        "AssembleWith": options.assemble,
    }
    resources: dict[str, Any] = {
        "InstanceType": options.instance_type,
        "InstanceCount": options.instance_count,
    }
    if options.kms_key is not None:
        output["KmsKeyId"] = options.kms_key
        if not _LOCAL_DISKS.match(options.instance_type):
            resources["VolumeKmsKeyId"] = options.kms_key
    request: dict[str, Any] = {
        "TransformJobName": name,
        "ModelName": options.model_name,
        "MaxConcurrentTransforms": options.max_concurrent,
        "ModelClientConfig": client,
        "MaxPayloadInMB": options.max_payload_mb,
        "BatchStrategy": options.strategy,
        "Environment": options.environment,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": requests}},
            "ContentType": options.content_type,
            "CompressionType": "None",
            "SplitType": options.split,
        },
        "TransformOutput": output,
        "TransformResources": resources,
        "DataProcessing": data_processing(options.content_type),
        "Tags": [{"Key": key, "Value": value} for key, value in options.tags.items()],
    }
    return {field: value for field, value in request.items() if value not in (None, {}, [])}


def asked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a job computes, from what and to where: by its request, or as DescribeTransformJob repeats that."""
    source = fields["TransformInput"]["DataSource"]["S3DataSource"]
    return {
        "ModelName": fields["ModelName"],
        "Environment": dict(fields.get("Environment") or {}),
        "S3Uri": source["S3Uri"],
        "S3OutputPath": fields["TransformOutput"]["S3OutputPath"].rstrip("/"),
    }


def _service_job(answer: dict[str, Any]) -> ServiceJob:
    """A job by DescribeTransformJob, or by its summary, which tells neither model nor places."""
    name, status = str(answer["TransformJobName"]), answer.get("TransformJobStatus", "InProgress")

    def seconds(field: str) -> float | None:
        return answer[field].timestamp() if answer.get(field) is not None else None

    ended = seconds("TransformEndTime")
    if ended is None and status in STATES and status not in UNDER_WAY:
        ended = seconds("LastModifiedTime")
    return ServiceJob(
        id=name,
        name=name,
        model=str(answer.get("ModelName", "")),
        state=state_of(name, status, STATES),
        message=str(answer.get("FailureReason") or ""),
        submitted_at=seconds("CreationTime") or 0.0,
        ended_at=ended,
        results=str(answer.get("TransformOutput", {}).get("S3OutputPath", "")),
        began_at=seconds("TransformStartTime"),
        asked=asked(answer) if "TransformInput" in answer and "TransformOutput" in answer else None,
    )
