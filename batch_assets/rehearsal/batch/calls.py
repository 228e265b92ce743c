"""AWS Batch's calls, with all the ways they can fail: ClientException and ServerException are all it says.

What becomes of an accepted job is `jobs.py`. SubmitJob has no token: sent twice, it makes two jobs.
"""

from collections.abc import Callable, Mapping
from typing import Any

from batch_assets.rehearsal.batch.definitions import Definitions
from batch_assets.rehearsal.batch.describing import COMPUTE_ENVIRONMENT, detail, job_arn, queue_arn, summary
from batch_assets.rehearsal.batch.jobs import BatchJobs
from batch_assets.rehearsal.batch.listing import choose, paged
from batch_assets.rehearsal.batch.submission import check_limits, check_submission, refused, work_of
from batch_assets.rehearsal.call_faults import CallFaults, Words
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.wire import Call, Reply, ServiceError, read_request, success

MOST_DESCRIBED = 100
WORDS = Words(("TooManyRequestsException", "Too Many Requests"), ("ServerException", "Internal server error"))
Result = dict[str, Any]


class BatchServiceCalls:
    """Each call returns a reply or raises ServiceError."""

    def __init__(self, jobs: BatchJobs, scenario: Scenario) -> None:
        self._jobs = jobs
        self._definitions = Definitions()
        self._faults = CallFaults(scenario, WORDS, "batch calls")
        self._queues_seen: set[tuple[str, str]] = set()

    @property
    def scenario(self) -> Scenario:
        return self._faults.scenario

    @scenario.setter
    def scenario(self, scenario: Scenario) -> None:
        self._faults.scenario = scenario

    def answer(self, operation: Any, call: Call, in_path: Mapping[str, str]) -> Reply:
        handlers: dict[str, Callable[[Result, str], Result]] = {
            "DescribeJobs": self._describe,
            "ListJobs": self._list,
            "TerminateJob": self._terminate,
            "TerminateJobs": self._terminate_many,
            "CancelJob": self._cancel,
            "CancelJobs": self._cancel_many,
            "RegisterJobDefinition": self._register,
            "DescribeJobDefinitions": self._describe_definitions,
            "DescribeJobQueues": self._describe_queues,
        }
        if operation.name != "SubmitJob" and operation.name not in handlers:
            raise ServiceError("ClientException", f"the rehearsal has no {operation.name}")
        self._faults.befall(operation.name, call.region)
        try:
            given = read_request(operation, call, in_path)
        except ServiceError as error:
            raise ServiceError("ClientException", error.message) from error
        if operation.name == "SubmitJob":
            return self._submit(operation, given, call)
        return success(operation, handlers[operation.name](given, call.region))

    def _submit(self, operation: Any, given: Result, call: Call) -> Reply:
        check_submission(given, len(call.body))
        queue = given["jobQueue"].rsplit("/", 1)[-1]
        if not self._is_queue(queue):
            raise refused(f"JobQueue {given['jobQueue']} is not found")
        definition = self._definitions.find(call.region, given["jobDefinition"])
        if definition is None:
            raise refused(f"JobDefinition {given['jobDefinition']} does not exist")
        with self._jobs.lock:
            for dependency in given.get("dependsOn", []):
                self._check_array(dependency, given)
            self._queues_seen.add((call.region, queue))
            job = self._jobs.submit(call.region, given, definition, work_of(given, definition))
        # Lost: the job exists, and its creator does not learn of it.
        return self._faults.after_accepting() or success(
            operation, {"jobArn": job_arn(job), "jobName": job.name, "jobId": job.id}
        )

    def _check_array(self, dependency: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        other = self._jobs.by_id.get(dependency.get("jobId", ""))
        if "jobId" in dependency and other is None:
            raise refused(f"Job {dependency['jobId']} does not exist")
        size = given.get("arrayProperties", {}).get("size")
        if other and dependency.get("type") == "N_TO_N" and len(other.children) != size:
            raise refused("N_TO_N needs an array of the same size")

    def _is_queue(self, name: str) -> bool:
        return not self.scenario.batch.queues or name in self.scenario.batch.queues

    def _describe(self, given: Result, region: str) -> Result:
        if len(given["jobs"]) > MOST_DESCRIBED:
            raise refused(f"jobs must not be more than {MOST_DESCRIBED}, was {len(given['jobs'])}")
        with self._jobs.lock:
            found = [self._jobs.find(identity.rsplit("/", 1)[-1]) for identity in given["jobs"]]
            return {"jobs": [detail(job) for job in found if job and job.region == region]}

    def _list(self, given: Result, region: str) -> Result:
        with self._jobs.lock:
            wanted = choose(self._jobs, given, region)
            found, token = paged(wanted, given, by_index="arrayJobId" in given)
            return {"jobSummaryList": [summary(job) for job in found], "nextToken": token}

    def _terminate(self, given: Result, region: str) -> Result:
        if job := self._found(given["jobId"], region):
            self._jobs.terminate(job, given["reason"])
        return {}

    def _cancel(self, given: Result, region: str) -> Result:
        if job := self._found(given["jobId"], region):
            self._jobs.cancel(job, given["reason"])
        return {}

    def _terminate_many(self, given: Result, region: str) -> Result:
        return self._many(given, region, self._terminate)

    def _cancel_many(self, given: Result, region: str) -> Result:
        return self._many(given, region, self._cancel)

    def _many(self, given: Result, region: str, one: Callable[[Result, str], Result]) -> Result:
        for identity in given["jobs"]:
            one({"jobId": identity, "reason": given["reason"]}, region)
        return {"successful": list(given["jobs"]), "errors": []}

    def _found(self, identity: str, region: str) -> Any:
        """A job that the caller means; what is not there is passed over, as the service does."""
        job = self._jobs.find(identity.rsplit("/", 1)[-1])
        return job if job and job.region == region else None

    def _register(self, given: Result, region: str) -> Result:
        check_limits(given)
        made = self._definitions.register(region, given)
        return {"jobDefinitionName": made.name, "jobDefinitionArn": made.arn, "revision": made.revision}

    def _describe_definitions(self, given: Result, region: str) -> Result:
        name = given.get("jobDefinitionName")
        found = self._definitions.all(region, name, given.get("jobDefinitions", []))
        if given.get("status", "ACTIVE") != "ACTIVE":
            found = []
        start = int(given.get("nextToken") or 0)
        end = start + given.get("maxResults", 100)
        return {
            "jobDefinitions": [each.described() for each in found[start:end]],
            "nextToken": str(end) if end < len(found) else None,
        }

    def _describe_queues(self, given: Result, region: str) -> Result:
        asked = [name.rsplit("/", 1)[-1] for name in given.get("jobQueues", [])]
        seen = [name for place, name in sorted(self._queues_seen) if place == region]
        names = asked or list(self.scenario.batch.queues) or seen
        environment = queue_arn(region, COMPUTE_ENVIRONMENT).replace("job-queue", "compute-environment")
        return {
            "jobQueues": [
                {
                    "jobQueueName": name,
                    "jobQueueArn": queue_arn(region, name),
                    "state": "ENABLED",
                    "status": "VALID",
                    "statusReason": "JobQueue Healthy",
                    "priority": 1,
                    "computeEnvironmentOrder": [{"order": 1, "computeEnvironment": environment}],
                    "jobQueueType": "ECS",
                }
                for name in names
                if self._is_queue(name)
            ]
        }
