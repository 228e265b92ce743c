"""AWS Batch's calls: every reply is what botocore's model says, every refusal a ClientException."""

import functools
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from batch_assets_tests.rehearsal.batch.cloud import Cloud, cloud
from batch_assets_tests.rehearsal.watching import expect, watch

RULES = [
    {"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"},
]  # fmt: skip


def test_every_reply() -> None:
    seen: set[tuple[str, str]] = set()
    with cloud(batch={"queues": ["queue"], "timing": {"submitted": [1, 1]}}) as where:
        client = watch(where.batch, seen)
        where.define()
        where.define(
            retryStrategy={"attempts": 2, "evaluateOnExit": RULES}, timeout={"attemptDurationSeconds": 60}
        )
        found = client.describe_job_definitions(jobDefinitionName="worker", status="ACTIVE")["jobDefinitions"]
        assert [each["revision"] for each in found] == [2, 1]
        assert client.describe_job_definitions(jobDefinitions=["worker:1"])["jobDefinitions"][0] == found[1]
        queues = client.describe_job_queues(jobQueues=["queue", "other"])["jobQueues"]
        assert [(queue["jobQueueName"], queue["state"], queue["status"]) for queue in queues] == [
            ("queue", "ENABLED", "VALID"),
        ]  # fmt: skip

        array = where.submit(
            size=2,
            jobDefinition=found[1]["jobDefinitionArn"],
            jobQueue=queues[0]["jobQueueArn"],
            shareIdentifier="texts",
            schedulingPriorityOverride=5,
            tags={"team": "search"},
            dependsOn=[{"type": "SEQUENTIAL"}],
            retryStrategy={"attempts": 3, "evaluateOnExit": RULES},
            timeout={"attemptDurationSeconds": 600},
            containerOverrides={
                "environment": [{"name": "A", "value": "1"}],
                "resourceRequirements": [{"type": "GPU", "value": "1"}],
            },
        )
        begun = where.describe(array)
        assert begun["status"] == "SUBMITTED" and "startedAt" not in begun
        assert begun["arrayProperties"]["statusSummary"]["SUBMITTED"] == begun["arrayProperties"]["size"] == 2
        done = where.reach(array, step=1)
        assert done["status"] == "SUCCEEDED" and done["arrayProperties"]["statusSummary"]["SUCCEEDED"] == 2
        child = where.describe(f"{array}:1")
        assert (child["arrayProperties"]["index"], child["container"]["exitCode"]) == (1, 0)
        assert [len(child["attempts"]), child["attempts"][0]["container"]["exitCode"]] == [1, 0]
        assert child["createdAt"] <= child["startedAt"] <= child["stoppedAt"]
        assert {each["type"] for each in child["container"]["resourceRequirements"]} == {
            "VCPU",
            "MEMORY",
            "GPU",
        }
        # Unknown ids are passed over.
        assert client.describe_jobs(jobs=["nobody", array])["jobs"][0]["jobId"] == array
        client.list_jobs(jobQueue="queue", jobStatus="SUCCEEDED")

        second = where.submit()
        client.cancel_job(jobId=second, reason="changed my mind")
        third = where.submit()
        client.terminate_job(jobId=third, reason="enough")
        client.terminate_job(jobId="nobody", reason="enough")
        assert client.terminate_jobs(jobs=[third], reason="enough")["successful"] == [third]
        assert client.cancel_jobs(jobs=[third], reason="enough")["errors"] == []
        cancelled, terminated = client.describe_jobs(jobs=[second, third])["jobs"]
        assert (cancelled["status"], cancelled["statusReason"]) == ("FAILED", "changed my mind")
        assert (cancelled["isCancelled"], cancelled["isTerminated"]) == (True, False)
        assert (terminated["status"], terminated["statusReason"]) == ("FAILED", "enough")
        assert (terminated["isCancelled"], terminated["isTerminated"]) == (False, True)
        for change, code in (
            ({"throttled": 1}, "TooManyRequestsException"), ({"server_errors": 1}, "ServerException"),
        ):  # fmt: skip
            where.server.scenario = where.server.scenario.changed({"calls": change})
            expect(code, client.describe_jobs, jobs=[array])
            where.server.scenario = where.server.scenario.changed({"calls": dict.fromkeys(change, 0)})
        expect("ClientException", client.describe_jobs, jobs=["a"] * 101)
    assert {operation for operation, _ in seen} == {
        "SubmitJob", "DescribeJobs", "ListJobs", "TerminateJob", "TerminateJobs", "CancelJob", "CancelJobs",
        "RegisterJobDefinition", "DescribeJobDefinitions", "DescribeJobQueues",
    }  # fmt: skip


LONG_TEXT = [{"name": "A", "value": "a" * 31_000}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"jobName": "a b"}, "Job name should match valid pattern"),
        ({"jobName": "a" * 129}, "Job name should match valid pattern"),
        ({"jobQueue": "other"}, "JobQueue other is not found"),
        ({"jobDefinition": "other"}, "JobDefinition other does not exist"),
        ({"jobDefinition": "worker:9"}, "JobDefinition worker:9 does not exist"),
        ({"arrayProperties": {"size": 1}}, "Array size must be between 2 and 10000, was 1"),
        ({"arrayProperties": {"size": 10_001}}, "Array size must be between 2 and 10000"),
        ({"dependsOn": [{"jobId": "a"}] * 21}, "more than 20 jobs"),
        ({"dependsOn": [{"jobId": "a"}]}, "Job a does not exist"),
        ({"dependsOn": [{"type": "N_TO_N", "jobId": "a"}]}, "N_TO_N is for array jobs"),
        ({"dependsOn": [{"type": "SEQUENTIAL"}]}, "SEQUENTIAL is for array jobs"),
        ({"retryStrategy": {"attempts": 11}}, "between 1 and 10"),
        ({"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"action": "EXIT"}] * 6}}, "more than 5 rules"),
        (
            {"retryStrategy": {"evaluateOnExit": [{"onExitCode": "x", "action": "EXIT"}]}},
            "onExitCode should match",
        ),
        (
            {"retryStrategy": {"evaluateOnExit": [{"onReason": "a*b", "action": "EXIT"}]}},
            "onReason should match",
        ),
        ({"timeout": {"attemptDurationSeconds": 59}}, "at least 60"),
        ({"containerOverrides": {"environment": LONG_TEXT}}, "maximum payload"),
        ({"containerOverrides": {"environment": [{"name": "AWS_BATCH_X", "value": "1"}]}}, "AWS_BATCH"),
        ({"schedulingPriorityOverride": 10_000}, "between 0 and 9999"),
    ],
)
def test_submissions_are_held_to_the_limits(changes: dict[str, Any], words: str, hold: Cloud) -> None:
    assert words in expect("ClientException", functools.partial(hold.submit, **changes))
    assert hold.server.batch_jobs.all() == []


@pytest.fixture(scope="module")
def hold() -> Any:
    """One server for all that is refused: nothing changes there."""
    with cloud(batch={"queues": ["queue"]}) as where:
        where.define()
        yield where


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"image": ""}, "image"), ({"resourceRequirements": []}, "VCPU"),
        ({"environment": [{"name": "A", "value": "a" * 25_000}]}, "24576 bytes"),
    ],
)  # fmt: skip
def test_definitions_are_held_to_the_limits(container: dict[str, Any], words: str, hold: Cloud) -> None:
    resources = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "1000"}]
    properties = {"image": "i", "resourceRequirements": resources} | container
    assert words in expect("ClientException", functools.partial(hold.define, containerProperties=properties))
    fargate = {"containerProperties": {"image": "i", "resourceRequirements": resources}}
    message = expect(
        "ClientException", functools.partial(hold.define, platformCapabilities=["FARGATE"], **fargate)
    )
    assert "executionRoleArn" in message


def listed(where: Cloud, **wanted: Any) -> list[str]:
    pages = where.batch.get_paginator("list_jobs").paginate(**wanted)
    return [job["jobName"] for page in pages for job in page["jobSummaryList"]]


def filtered(where: Cloud, name: str, *values: str, **wanted: Any) -> list[str]:
    return listed(where, jobQueue="queue", filters=[{"name": name, "values": list(values)}], **wanted)


def test_listing() -> None:
    with cloud(batch={"timing": {"running": [1000, 1000]}}) as where:
        where.define()
        ids: list[str] = []
        for name in ("Texts-1", "texts-2", "images-1"):
            where.server.set_clock(advance=5)
            ids.append(where.submit(jobName=name, size=3 if name == "texts-2" else None))
        where.submit(jobQueue="another")
        where.reach(f"{ids[1]}:2", "RUNNING")
        # By default those that run: the array itself is PENDING, its children are listed by it.
        assert sorted(listed(where, jobQueue="queue")) == ["Texts-1", "images-1"]
        assert listed(where, jobQueue="queue", jobStatus="PENDING") == ["texts-2"]
        assert listed(where, arrayJobId=ids[1], PaginationConfig={"PageSize": 2}) == ["texts-2"] * 3
        children = where.batch.list_jobs(arrayJobId=ids[1])["jobSummaryList"]
        assert [child["arrayProperties"]["index"] for child in children] == [0, 1, 2]
        assert listed(where, arrayJobId=ids[1], jobStatus="FAILED") == []
        # With a filter the state does not count.
        assert filtered(where, "JOB_NAME", "texts-*", jobStatus="FAILED") == ["texts-2", "Texts-1"]
        assert filtered(where, "JOB_NAME", "TEXTS-2") == ["texts-2"]
        middle = str(where.describe(ids[1])["createdAt"])
        assert filtered(where, "AFTER_CREATED_AT", middle) == ["images-1"]
        assert filtered(where, "BEFORE_CREATED_AT", middle) == ["Texts-1"]
        assert filtered(where, "JOB_NAME", "*", PaginationConfig={"PageSize": 1}) == [
            "images-1", "texts-2", "Texts-1",
        ]  # fmt: skip
        expect("ClientException", where.batch.list_jobs)
        expect("ClientException", where.batch.list_jobs, jobQueue="queue", nextToken="nonsense")
        expect("ClientException", functools.partial(filtered, where, "JOB_NAME", "*"), maxResults=101)


def test_jobs_are_forgotten_after_a_time() -> None:
    with cloud(batch={"kept_seconds": 100}) as where:
        where.define()
        done = where.run()
        where.server.set_clock(advance=101)
        assert where.batch.describe_jobs(jobs=[done["jobId"]])["jobs"] == []
        assert filtered(where, "JOB_NAME", "*") == []


def test_there_is_no_token_a_second_submission_is_a_second_job() -> None:
    with cloud(calls={"lost_responses": 1}, seed=1, batch={"timing": {"submitted": [1000, 1000]}}) as where:
        where.define()
        for _ in range(4):
            with pytest.raises((ConnectionClosedError, ClientError)):
                where.submit(jobName="one")
        assert filtered(where, "JOB_NAME", "one") == ["one"] * 4
