"""Bedrock's four calls for batch jobs, and the queue of its events, in this project's words.

Which call is made when is in `control/`; what a refusal means, in `service_errors.py`.
"""

import datetime
from dataclasses import dataclass
from typing import Any

from batch_assets.executors.aws.errors import cannot_ask, error_code, error_message
from batch_assets.executors.base import JobState
from batch_assets.executors.bedrock.service_errors import CONFLICT, explain_refusal, is_name_taken
from batch_assets.executors.deferred import NameTaken, ServiceJob
from batch_assets.plain_text import plain_logger
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
logger = plain_logger(__name__)


@dataclass
class BedrockService:
    """Batch inference jobs with one model in one region."""

    client: Any
    client_once: Any  # tries nothing twice: what it raises is about the one call that was made
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

    def get(self, job_id: str) -> ServiceJob | None:
        """The truth about a job; None where the service does not know it. Raises Unanswered."""
        try:
            return _service_job(self.client.get_model_invocation_job(jobIdentifier=job_id))
        except Exception as error:
            if error_code(error) == "ResourceNotFoundException":
                return None
            raise _unanswered(error) from error

    def jobs_since(self, since: float | None) -> list[ServiceJob]:
        """Every job of the account, of all models and states, submitted after `since`, newest first."""
        call: dict[str, Any] = {"maxResults": PAGE, "sortBy": "CreationTime", "sortOrder": "Descending"}
        if since is not None:
            call["submitTimeAfter"] = datetime.datetime.fromtimestamp(since, datetime.UTC)
        return self._list(call)

    def find(self, name: str) -> ServiceJob | None:
        """The job of that name. Raises Unanswered."""
        for job in self._list({"nameContains": name, "maxResults": PAGE}):
            if job.name == name:
                return job
        return None

    def named(self, prefix: str) -> list[ServiceJob]:
        """All jobs whose name begins so. Raises Unanswered."""
        found = self._list({"nameContains": prefix.rstrip("-"), "maxResults": PAGE})
        return [job for job in found if job.name.startswith(prefix)]

    def _list(self, call: dict[str, Any]) -> list[ServiceJob]:
        jobs: list[ServiceJob] = []
        try:
            while True:
                answer = self.client.list_model_invocation_jobs(**call)
                jobs += [_service_job(summary) for summary in answer.get("invocationJobSummaries", ())]
                if not answer.get("nextToken"):
                    return jobs
                call["nextToken"] = answer["nextToken"]
        except Exception as error:
            raise _unanswered(error) from error

    def stop(self, job_id: str) -> None:
        """Stop a job; one that has ended is left as it is. Raises Unanswered."""
        try:
            self.client.stop_model_invocation_job(jobIdentifier=job_id)
        except Exception as error:
            if error_code(error) in ENDED:
                logger.debug("job %s: not stopped: %s", job_id, error_message(error))
                return
            raise _unanswered(error) from error


def asked(requests: str, results: str) -> dict[str, str]:
    """From what a job computes and to where, in one spelling; its model has many (`model_ids.py`)."""
    return {"requests": requests.rstrip("/"), "results": results.rstrip("/")}


def _service_job(answer: dict[str, Any]) -> ServiceJob:
    status = answer.get("status", "Submitted")
    if status not in STATES:
        logger.warning("job %s: status %r is not known; it counts as running", answer["jobArn"], status)
    requests = answer.get("inputDataConfig", {}).get("s3InputDataConfig", {}).get("s3Uri", "")
    results = answer.get("outputDataConfig", {}).get("s3OutputDataConfig", {}).get("s3Uri", "")
    model = str(answer.get("modelId", ""))
    return ServiceJob(
        id=str(answer["jobArn"]),
        name=str(answer.get("jobName", "")),
        model=model,
        state=STATES.get(status, JobState.RUNNING),
        message=str(answer.get("message") or ""),
        submitted_at=answer["submitTime"].timestamp() if "submitTime" in answer else 0.0,
        ended_at=answer["endTime"].timestamp() if "endTime" in answer else None,
        records=answer.get("processedRecordCount"),
        results=str(results),
        asked=asked(str(requests), str(results)),
    )


def _unanswered(error: Exception) -> Exception:
    """Forbidden and malformed calls are a person's to mend; everything else may pass."""
    return cannot_ask(error, "Bedrock", "bedrock:ListModelInvocationJobs and bedrock:GetModelInvocationJob")
