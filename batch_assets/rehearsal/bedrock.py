"""Bedrock's calls for batch inference jobs: create, get, list, stop, with all the ways they can fail; and of models.

What becomes of an accepted job is `jobs.py`; InvokeModel is `on_demand.py`.
"""

from collections.abc import Mapping
from typing import Any

from batch_assets.rehearsal.call_faults import CallFaults, Words
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.job import Job
from batch_assets.rehearsal.jobs import Jobs
from batch_assets.rehearsal.models import base_model, model_arn, model_for
from batch_assets.rehearsal.paging import page
from batch_assets.rehearsal.request_files import bucket_problem
from batch_assets.rehearsal.wire import Call, Reply, ServiceError, read_request, success

DEFAULT_PAGE = 100
NOT_ENTITLED = "Your account is not authorized to perform this action. Please create a support case"


class BatchCalls:
    """The calls; each returns a reply or raises ServiceError."""

    def __init__(self, jobs: Jobs, s3: Any, scenario: Scenario) -> None:
        self._jobs = jobs
        self._s3 = s3
        self._faults = CallFaults(scenario, Words(), "calls")
        self._tokens: dict[tuple[str, str], Job] = {}

    @property
    def scenario(self) -> Scenario:
        return self._faults.scenario

    @scenario.setter
    def scenario(self, scenario: Scenario) -> None:
        self._faults.scenario = scenario

    def answer(self, operation: Any, call: Call, in_path: Mapping[str, str]) -> Reply:
        handler = {
            "CreateModelInvocationJob": self._create,
            "GetModelInvocationJob": self._get,
            "ListModelInvocationJobs": self._list,
            "StopModelInvocationJob": self._stop,
            "GetFoundationModel": self._model,
        }.get(operation.name)
        if handler is None:
            raise ServiceError("UnknownOperationException", f"the rehearsal has no {operation.name}")
        self._faults.befall(operation.name, call.region)
        given = read_request(operation, call, in_path)
        return handler(operation, given, call.region)

    def _create(self, operation: Any, given: dict[str, Any], region: str) -> Reply:
        calls = self.scenario.calls
        if not calls.entitled:
            raise ServiceError("ValidationException", NOT_ENTITLED)
        if not calls.pass_role:
            raise ServiceError(
                "AccessDeniedException",
                "User: arn:aws:iam::123456789012:user/rehearsal is not authorized to perform: iam:PassRole on "
                f"resource: {given['roleArn']} because no identity-based policy allows the iam:PassRole action",
            )
        if model_for(given["modelId"], given.get("modelInvocationType") or "InvokeModel") is None:
            raise ServiceError(
                "ValidationException", f"The provided model identifier is invalid: {given['modelId']}"
            )
        if calls.check_buckets:
            self._check_buckets(given, region)
        with self._jobs.lock:
            job = self._known(given, region)
            if job is None:
                job = self._accept(given, region)
        # Lost: the job exists, and its creator does not learn of it.
        return self._faults.after_accepting() or success(operation, {"jobArn": job.arn})

    def _known(self, given: Mapping[str, Any], region: str) -> Job | None:
        """The job that an earlier call with the same token made: the request is ignored without an error."""
        token = given.get("clientRequestToken")
        return self._tokens.get((region, token)) if token else None

    def _accept(self, given: dict[str, Any], region: str) -> Job:
        name = given["jobName"]
        if any(job.name == name and job.region == region for job in self._jobs.by_id.values()):
            raise ServiceError(
                self.scenario.calls.name_taken, f"The batch job name {name} is already in use."
            )
        quotas = self.scenario.quotas
        if quotas.when_full == "reject" and self._jobs.is_full(region, given["modelId"]):
            raise ServiceError(
                "ServiceQuotaExceededException",
                f"The sum of in-progress and submitted batch inference jobs for {given['modelId']} has reached "
                f"the quota of {quotas.concurrent_jobs}.",
            )
        job = self._jobs.accept(region, given)
        if token := given.get("clientRequestToken"):
            self._tokens[region, token] = job
        return job

    def _check_buckets(self, given: Mapping[str, Any], region: str) -> None:
        for config in (
            given["inputDataConfig"]["s3InputDataConfig"],
            given["outputDataConfig"]["s3OutputDataConfig"],
        ):
            if problem := bucket_problem(self._s3, config["s3Uri"], region, config.get("s3BucketOwner")):
                raise ServiceError("ValidationException", problem)

    def _find(self, identifier: str, region: str) -> Job:
        job = self._jobs.by_id.get(identifier.rsplit("/", 1)[-1])
        if job is None or job.region != region or (":" in identifier and identifier != job.arn):
            raise ServiceError("ResourceNotFoundException", "Could not find the model invocation job")
        return job

    def _get(self, operation: Any, given: dict[str, Any], region: str) -> Reply:
        with self._jobs.lock:
            return success(operation, self._find(given["jobIdentifier"], region).described(self._jobs.now))

    def _model(self, operation: Any, given: dict[str, Any], region: str) -> Reply:
        on_demand = self.scenario.on_demand
        if not on_demand.told:
            raise ServiceError(
                "AccessDeniedException", "not authorized to perform: bedrock:GetFoundationModel"
            )
        name = base_model(given["modelIdentifier"])
        ways = ["ON_DEMAND"] if on_demand.served else ["PROVISIONED"]
        details = {"modelArn": model_arn(name, region), "modelId": name, "inferenceTypesSupported": ways}
        return success(operation, {"modelDetails": details})

    def _stop(self, operation: Any, given: dict[str, Any], region: str) -> Reply:
        job = self._find(given["jobIdentifier"], region)
        if not self._jobs.stop(job):
            raise ServiceError(
                self.scenario.calls.stop_refusal,
                f"The model invocation job {job.arn} cannot be stopped. State was: {job.status}",
            )
        return success(operation, {})

    def _list(self, operation: Any, given: dict[str, Any], region: str) -> Reply:
        with self._jobs.lock:
            wanted = [
                job for job in self._jobs.by_id.values() if job.region == region and _is_wanted(job, given)
            ]
            try:
                found, token = page(
                    wanted,
                    _position,
                    given.get("maxResults", DEFAULT_PAGE),
                    given.get("nextToken"),
                    descending=given.get("sortOrder") != "Ascending",
                )
            except ValueError as error:
                raise ServiceError("ValidationException", "The provided nextToken is invalid.") from error
            summaries = [job.described(self._jobs.now) for job in found]
        return success(operation, {"invocationJobSummaries": summaries, "nextToken": token})


def _position(job: Job) -> tuple[float, str]:
    return job.submitted, job.id


def _is_wanted(job: Job, given: Mapping[str, Any]) -> bool:
    return (
        given.get("statusEquals", job.status) == job.status
        and given.get("nameContains", "") in job.name
        and given.get("submitTimeAfter", job.submitted - 1) < job.submitted
        and given.get("submitTimeBefore", job.submitted + 1) > job.submitted
    )
