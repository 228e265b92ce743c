"""SageMaker's calls for transform jobs: create, describe, list, stop, and DescribeModel of the models they find.

What becomes of an accepted job is `jobs.py`.
"""

from collections.abc import Mapping
from typing import Any

from batch_assets.rehearsal.account import ACCOUNT
from batch_assets.rehearsal.call_faults import CallFaults, Words
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.paging import page
from batch_assets.rehearsal.sagemaker.job import TransformJob
from batch_assets.rehearsal.sagemaker.jobs import TransformJobs
from batch_assets.rehearsal.sagemaker.json_path import PathInvalid, parse
from batch_assets.rehearsal.wire import Call, Reply, ServiceError, read_request, success

OPERATIONS = (
    "CreateTransformJob", "DescribeTransformJob", "ListTransformJobs", "StopTransformJob", "DescribeModel",
)  # fmt: skip
IMAGE = "763104351884.dkr.ecr.{region}.amazonaws.com/huggingface-pytorch-inference:2.6-transformers4.49-gpu"
DEFAULT_PAGE = 10
MOST_PAYLOAD_MB = 100
MOST_INSTANCES = 100
WORDS = Words(
    ("ThrottlingException", "Rate exceeded"),
    (
        "InternalFailure",
        "The request processing has failed because of an unknown error, exception or failure.",
    ),
)


class TransformCalls:
    """The calls; each returns a reply or raises ServiceError."""

    def __init__(self, jobs: TransformJobs, scenario: Scenario) -> None:
        self._jobs = jobs
        self._faults = CallFaults(scenario, WORDS, "transform calls")

    @property
    def scenario(self) -> Scenario:
        return self._faults.scenario

    @scenario.setter
    def scenario(self, scenario: Scenario) -> None:
        self._faults.scenario = scenario

    def answer(self, operation: Any, call: Call) -> Reply:
        handler = {
            "CreateTransformJob": self._create,
            "DescribeTransformJob": self._describe,
            "ListTransformJobs": self._list,
            "StopTransformJob": self._stop,
            "DescribeModel": self._describe_model,
        }[operation.name]
        self._faults.befall(operation.name, call.region)
        return handler(operation, read_request(operation, call, {}), call.region)

    def _create(self, operation: Any, given: dict[str, Any], region: str) -> Reply:
        _check(given)
        self._model_arn(given["ModelName"], region)
        with self._jobs.lock:
            if known := self._jobs.by_name.get((region, given["TransformJobName"])):
                raise ServiceError(
                    "ResourceInUse",
                    "Job name must be unique within an AWS account and region, and a job with this name already "
                    f"exists ({known.arn})",
                )
            self._hold_to_quota(given["TransformResources"], region)
            job = self._jobs.accept(region, given)
        # Lost: the job exists, and its creator does not learn of it.
        return self._faults.after_accepting() or success(operation, {"TransformJobArn": job.arn})

    def _model_arn(self, name: str, region: str) -> str:
        """Every name is a model's, unless the scenario says otherwise; raises ServiceError."""
        arn = f"arn:aws:sagemaker:{region}:{ACCOUNT}:model/{name}"
        if self.scenario.transform.kind(name) == "absent":
            raise ServiceError("ValidationException", f'Could not find model "{arn}".')
        return arn

    def _describe_model(self, operation: Any, given: dict[str, Any], region: str) -> Reply:
        found = {
            "ModelName": given["ModelName"],
            "ModelArn": self._model_arn(given["ModelName"], region),
            "PrimaryContainer": {"Image": IMAGE.format(region=region), "Mode": "SingleModel"},
            "ExecutionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/sagemaker",
            "CreationTime": 1_767_225_600.0,
        }
        return success(operation, found)

    def _hold_to_quota(self, resources: Mapping[str, Any], region: str) -> None:
        kind, asked = resources["InstanceType"], resources["InstanceCount"]
        quota, used = self.scenario.transform.quota(kind), self._jobs.instances_in_use(region, kind)
        if used + asked > quota:
            raise ServiceError(
                "ResourceLimitExceeded",
                f"The account-level service limit '{kind} for transform job usage' is {quota} Instances, with current "
                f"utilization of {used} Instances and a request delta of {asked} Instances. Please use AWS Service "
                "Quotas to request an increase for this quota. If AWS Service Quotas is not available, contact AWS "
                "support to request an increase for this quota.",
            )

    def _find(self, name: str, region: str) -> TransformJob:
        job = self._jobs.by_name.get((region, name))
        if job is None:
            raise ServiceError(
                self.scenario.transform.not_found, f"Could not find requested job with name: {name}"
            )
        return job

    def _describe(self, operation: Any, given: dict[str, Any], region: str) -> Reply:
        with self._jobs.lock:
            return success(operation, self._find(given["TransformJobName"], region).described())

    def _stop(self, operation: Any, given: dict[str, Any], region: str) -> Reply:
        job = self._find(given["TransformJobName"], region)
        if not self._jobs.stop(job):
            raise ServiceError(
                "ValidationException",
                f"The request was rejected because the transform job is in status {job.status}.",
            )
        return success(operation, {})

    def _list(self, operation: Any, given: dict[str, Any], region: str) -> Reply:
        by = given.get("SortBy", "CreationTime")

        def position(job: TransformJob) -> tuple[Any, ...]:
            first = {"Name": job.name, "Status": job.status, "CreationTime": job.created}[by]
            return first, job.number

        with self._jobs.lock:
            wanted = [job for job in self._jobs.all() if job.region == region and _is_wanted(job, given)]
            try:
                found, token = page(
                    wanted,
                    position,
                    given.get("MaxResults", DEFAULT_PAGE),
                    given.get("NextToken"),
                    descending=given.get("SortOrder", "Descending") == "Descending",
                )
            except ValueError as error:
                raise ServiceError("ValidationException", "The NextToken is invalid.") from error
            summaries = [job.summary() for job in found]
        return success(operation, {"TransformJobSummaries": summaries, "NextToken": token})


def _is_wanted(job: TransformJob, given: Mapping[str, Any]) -> bool:
    return (
        given.get("StatusEquals", job.status) == job.status
        and given.get("NameContains", "").lower() in job.name.lower()
        and given.get("CreationTimeAfter", job.created - 1) < job.created
        and given.get("CreationTimeBefore", job.created + 1) > job.created
        and given.get("LastModifiedTimeAfter", job.modified - 1) < job.modified
        and given.get("LastModifiedTimeBefore", job.modified + 1) > job.modified
    )


def _check(given: Mapping[str, Any]) -> None:
    """What the model does not say, and the service refuses all the same."""
    payload, concurrent = given.get("MaxPayloadInMB", 6), given.get("MaxConcurrentTransforms") or 1
    if payload > MOST_PAYLOAD_MB or payload * concurrent > MOST_PAYLOAD_MB:
        raise ServiceError(
            "ValidationException",
            f"MaxPayloadInMB ({payload}) times MaxConcurrentTransforms ({concurrent}) must not be above "
            f"{MOST_PAYLOAD_MB} MB.",
        )
    if given["TransformResources"]["InstanceCount"] > MOST_INSTANCES:
        raise ServiceError("ValidationException", f"InstanceCount must not be above {MOST_INSTANCES}.")
    kind = given["TransformInput"]["DataSource"]["S3DataSource"]["S3DataType"]
    if kind not in ("S3Prefix", "ManifestFile"):
        raise ServiceError("ValidationException", f"S3DataType {kind} is not supported by transform jobs.")
    for name in ("InputFilter", "OutputFilter"):
        try:
            parse((given.get("DataProcessing") or {}).get(name, "$"))
        except PathInvalid as error:
            raise ServiceError("ValidationException", f"{name} is no valid JSONPath: {error}") from error
