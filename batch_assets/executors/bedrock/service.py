"""Bedrock's four calls for batch jobs, and the queue of its events, in this project's words.

Which call is made when is in `control/`; what a refusal means, in `service_errors.py`.
"""

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batch_assets.executors.aws.errors import error_code, error_message
from batch_assets.executors.aws.job_calls import JobCalls, pages, state_of
from batch_assets.executors.base import JobState
from batch_assets.executors.bedrock.service_errors import CONFLICT, explain_refusal, is_name_taken
from batch_assets.executors.service_jobs import NameTaken, ServiceJob
from batch_assets.settings.bedrock import BedrockExecutorSettings

PAGE = 1000

# Stopping still takes a slot; it ends as Stopped, or as Completed where it came too late.
STATES = {
    "Submitted": JobState.SUBMITTED,
    "Validating": JobState.SUBMITTED,
    "Scheduled": JobState.SUBMITTED,
    "InProgress": JobState.RUNNING,
    "Stopping": JobState.RUNNING,
    "Completed": JobState.SUCCEEDED,
    "PartiallyCompleted": JobState.PARTIAL,
    "Failed": JobState.FAILED,
    "Stopped": JobState.STOPPED,
    "Expired": JobState.EXPIRED,
}
# What a job that has ended, or is forgotten, is not stopped by: in the field it is ValidationException ("State was:
# Completed"), by the service's model ConflictException.
ENDED = ("ValidationException", CONFLICT, "ResourceNotFoundException")


@dataclass
class BedrockService(JobCalls):
    """Batch inference jobs with one model in one region."""

    service_name = "Bedrock"
    may_ask = "bedrock:ListModelInvocationJobs and bedrock:GetModelInvocationJob"
    may_stop = "bedrock:StopModelInvocationJob"

    options: BedrockExecutorSettings
    region: str

    def create(self, name: str, token: str, requests: str, results: str, invocation_type: str) -> str:
        """Start a job; its ARN. One that exists and was made with that token is the same job.

        Raises SlotsFull, Unanswered (it may or may not exist now), SubmissionRefused, NameTaken.
        """
        call: dict[str, Any] = {
            "jobName": name,
            "clientRequestToken": token,
            "roleArn": self.options.role_arn,
            "modelId": self.options.model_id,
            "inputDataConfig": {"s3InputDataConfig": {"s3Uri": requests, "s3InputFormat": "JSONL"}},
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": results}},
            "timeoutDurationInHours": self.options.timeout_hours,
        }
        if invocation_type != "InvokeModel":
            call["modelInvocationType"] = invocation_type
        try:
            return str(self.client_once.create_model_invocation_job(**call)["jobArn"])
        except Exception as error:
            if is_name_taken(error):
                raise NameTaken(error_message(error)) from error
            raise explain_refusal(error, self.options.model_id, self.options.role_arn, self.region) from error

    def _describe(self, job_id: str) -> ServiceJob:
        return _service_job(self.client.get_model_invocation_job(jobIdentifier=job_id))

    def _list(self, wanted: Mapping[str, Any]) -> Iterator[ServiceJob]:
        call = {"maxResults": PAGE, **wanted}
        return map(
            _service_job, pages(self.client.list_model_invocation_jobs, call, "invocationJobSummaries")
        )

    def _named(self, text: str) -> Mapping[str, Any]:
        return {"nameContains": text}

    def _stop(self, job_id: str) -> None:
        self.client.stop_model_invocation_job(jobIdentifier=job_id)

    def is_unknown(self, error: Exception) -> bool:
        return error_code(error) == "ResourceNotFoundException"

    def is_over(self, error: Exception) -> bool:
        return error_code(error) in ENDED

    def find(self, name: str) -> ServiceJob | None:
        return next((job for job in self.listed(self._named(name)) if job.name == name), None)

    def jobs_since(self, since: float | None) -> list[ServiceJob]:
        """Every job of the account, of all models and states, submitted after `since`, newest first."""
        wanted: dict[str, Any] = {"sortBy": "CreationTime", "sortOrder": "Descending"}
        if since is not None:
            wanted["submitTimeAfter"] = datetime.datetime.fromtimestamp(since, datetime.UTC)
        return self.listed(wanted)


def asked(requests: str, results: str) -> dict[str, str]:
    """From what a job computes and to where, in one spelling; its model has many (`model_ids.py`)."""
    return {"requests": requests.rstrip("/"), "results": results.rstrip("/")}


def _service_job(answer: dict[str, Any]) -> ServiceJob:
    requests = answer.get("inputDataConfig", {}).get("s3InputDataConfig", {}).get("s3Uri", "")
    results = answer.get("outputDataConfig", {}).get("s3OutputDataConfig", {}).get("s3Uri", "")
    model = str(answer.get("modelId", ""))
    return ServiceJob(
        id=str(answer["jobArn"]),
        name=str(answer.get("jobName", "")),
        model=model,
        state=state_of(answer["jobArn"], answer.get("status", "Submitted"), STATES),
        message=str(answer.get("message") or ""),
        submitted_at=answer["submitTime"].timestamp() if "submitTime" in answer else 0.0,
        ended_at=answer["endTime"].timestamp() if "endTime" in answer else None,
        records=answer.get("processedRecordCount"),
        results=str(results),
        asked=asked(str(requests), str(results)),
    )
