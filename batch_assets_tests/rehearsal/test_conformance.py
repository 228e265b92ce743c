"""Every reply, of success and of error, is what botocore's models say, for an unmodified client."""

import json
import urllib.request
from typing import Any

import pytest

from batch_assets_tests.rehearsal.aws import TITAN, Aws, aws, request
from batch_assets_tests.rehearsal.watching import expect, watch

BATCH_OPERATIONS = {
    "CreateModelInvocationJob", "GetModelInvocationJob", "ListModelInvocationJobs", "StopModelInvocationJob",
}  # fmt: skip


def test_every_reply_of_the_batch_calls() -> None:
    seen: set[tuple[str, str]] = set()
    with aws(quotas={"concurrent_jobs": 3}) as cloud:
        bedrock = watch(cloud.bedrock, seen)
        cloud.put_texts(5)
        everything = cloud.creation(
            clientRequestToken="token-1",
            timeoutDurationInHours=48,
            modelInvocationType="InvokeModel",
            tags=[{"key": "team", "value": "search"}],
            vpcConfig={"subnetIds": ["subnet-1"], "securityGroupIds": ["sg-1"]},
        )
        everything["inputDataConfig"]["s3InputDataConfig"]["s3InputFormat"] = "JSONL"
        arn = bedrock.create_model_invocation_job(**everything)["jobArn"]
        for status in ("Validating", "Scheduled", "InProgress", "Completed"):
            assert cloud.reach(arn, status, step=5)["status"] == status
        assert cloud.get(arn.rsplit("/", 1)[1])["jobArn"] == arn
        expect("ValidationException", bedrock.stop_model_invocation_job, jobIdentifier=arn)

        second = cloud.create(jobName="second")
        bedrock.stop_model_invocation_job(jobIdentifier=second)
        assert bedrock.list_model_invocation_jobs()["invocationJobSummaries"][0]["status"] == "Stopping"
        cloud.reach(second, "Stopped")
        expect("ConflictException", bedrock.create_model_invocation_job, **cloud.creation(jobName="second"))
        for number in range(3):
            cloud.create(jobName=f"full-{number}")
        expect("ServiceQuotaExceededException", bedrock.create_model_invocation_job, **cloud.creation())
        missing = arn[:-1] + ("a" if arn[-1] != "a" else "b")
        expect("ResourceNotFoundException", bedrock.get_model_invocation_job, jobIdentifier=missing)
        expect("ResourceNotFoundException", bedrock.stop_model_invocation_job, jobIdentifier=missing)
        expect("ValidationException", bedrock.get_model_invocation_job, jobIdentifier="NO-ID")
        expect("ValidationException", bedrock.list_model_invocation_jobs, maxResults=1001)
        expect("ValidationException", bedrock.list_model_invocation_jobs, nextToken="nonsense")

        calls: dict[str, dict[str, Any]] = {
            "create_model_invocation_job": cloud.creation(),
            "get_model_invocation_job": {"jobIdentifier": arn},
            "list_model_invocation_jobs": {},
            "stop_model_invocation_job": {"jobIdentifier": arn},
        }
        for change, code in (
            ({"throttled": 1}, "ThrottlingException"),
            ({"server_errors": 1}, "InternalServerException"),
        ):
            cloud.server.scenario = cloud.server.scenario.changed({"calls": change})
            for name, arguments in calls.items():
                expect(code, getattr(bedrock, name), **arguments)
            cloud.server.scenario = cloud.server.scenario.changed({"calls": dict.fromkeys(change, 0)})
        cloud.server.scenario = cloud.server.scenario.changed(
            {"calls": {"pass_role": False, "stop_refusal": "ConflictException"}}
        )
        assert "iam:PassRole" in expect(
            "AccessDeniedException", bedrock.create_model_invocation_job, **cloud.creation()
        )
        assert "State was: Completed" in expect(
            "ConflictException", bedrock.stop_model_invocation_job, jobIdentifier=arn
        )
    assert {operation for operation, _ in seen} == BATCH_OPERATIONS
    assert {code for operation, code in seen if operation == "CreateModelInvocationJob"} == {
        "ok", "ConflictException", "ServiceQuotaExceededException", "ThrottlingException",
        "InternalServerException", "AccessDeniedException",
    }  # fmt: skip


LONGER = "failed to satisfy constraint: Member must have length less than or equal to"
UNFIT = "failed to satisfy constraint: Member must satisfy regular expression pattern: "
HIVE = {"s3OutputDataConfig": {"s3Uri": "s3://bucket/dt=2026-11-20/"}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"jobName": "under_score"}, f"Value 'under_score' at 'jobName' {UNFIT}"),
        ({"jobName": "a" * 64}, f"at 'jobName' {LONGER} 63"),
        ({"timeoutDurationInHours": 169}, "Member must have value less than or equal to 168"),
        ({"modelInvocationType": "Bogus"}, "Member must satisfy enum value set: [InvokeModel, Converse]"),
        ({"clientRequestToken": "a:b"}, f"at 'clientRequestToken' {UNFIT}"),
        ({"roleArn": "role"}, f"at 'roleArn' {UNFIT}"),
        ({"modelId": "no model"}, f"at 'modelId' {UNFIT}"),
        ({"modelId": "amazon.unheard-of-v1:0"}, "The provided model identifier is invalid"),
        ({"modelId": TITAN, "modelInvocationType": "Converse"}, "The provided model identifier is invalid"),
        ({"outputDataConfig": HIVE}, f"at 'outputDataConfig.s3OutputDataConfig.s3Uri' {UNFIT}"),
        ({"tags": [{"key": "a|c", "value": "v"}]}, f"at 'tags.1.member.key' {UNFIT}"),
    ],
)
def test_requests_are_held_to_the_model(changes: dict[str, Any], words: str) -> None:
    with aws() as cloud:
        message = expect(
            "ValidationException", cloud.bedrock.create_model_invocation_job, **cloud.creation(**changes)
        )
        assert words in message
        assert cloud.bedrock.list_model_invocation_jobs()["invocationJobSummaries"] == []


def test_all_that_is_wrong_is_told_at_once() -> None:
    with aws() as cloud:
        wrong = cloud.creation(jobName="under_score", timeoutDurationInHours=169)
        message = expect("ValidationException", cloud.bedrock.create_model_invocation_job, **wrong)
        assert message.startswith("2 validation errors detected: Value 'under_score' at 'jobName'")


def test_an_account_without_the_right_is_told_so() -> None:
    with aws(calls={"entitled": False}) as cloud:
        message = expect("ValidationException", cloud.bedrock.create_model_invocation_job, **cloud.creation())
        assert (
            message == "Your account is not authorized to perform this action. Please create a support case"
        )


def test_every_reply_of_on_demand_calls() -> None:
    seen: set[tuple[str, str]] = set()
    with aws() as cloud:
        runtime = watch(cloud.client("bedrock-runtime"), seen)
        body = json.dumps(request(1)["modelInput"])
        reply = runtime.invoke_model(
            modelId=f"arn:aws:bedrock:us-east-1::foundation-model/{TITAN}", body=body
        )
        assert len(json.loads(reply["body"].read())["embedding"]) == 256
        assert reply["ResponseMetadata"]["HTTPHeaders"]["x-amzn-bedrock-input-token-count"] == "3"
        messages = [{"role": "user", "content": [{"text": "What is a shard?"}]}]
        answer = runtime.converse(modelId="us.anthropic.claude-haiku-4-5-20251001-v1:0", messages=messages)
        assert "shard?" in answer["output"]["message"]["content"][0]["text"]
        assert "inputText" in expect("ValidationException", runtime.invoke_model, modelId=TITAN, body="{}")
        for faults, code in (
            ({"throttled": 1}, "ThrottlingException"),
            ({"unavailable": 1}, "ServiceUnavailableException"),
        ):
            cloud.server.scenario = cloud.server.scenario.changed({"on_demand": faults})
            expect(code, runtime.invoke_model, modelId=TITAN, body=body)
            cloud.server.scenario = cloud.server.scenario.changed({"on_demand": dict.fromkeys(faults, 0)})
        cloud.server.scenario = cloud.server.scenario.changed({"quotas": {"on_demand_rpm": 0}})
        expect("ThrottlingException", runtime.converse, modelId="anthropic.claude-x", messages=messages)
        books = cloud.server.books.as_dict()
        assert books["on_demand"]["records"] == books["on_demand"]["paid"] == 2
    assert {operation for operation, _ in seen} == {"InvokeModel", "Converse"}


def test_every_reply_of_service_quotas() -> None:
    seen: set[tuple[str, str]] = set()
    with aws(quotas={"min_records": 100, "concurrent_jobs": 7}) as cloud:
        quotas = watch(cloud.client("service-quotas"), seen)
        listed = [
            quota
            for page in quotas.get_paginator("list_service_quotas").paginate(
                ServiceCode="bedrock", MaxResults=5
            )
            for quota in page["Quotas"]
        ]
        by_name = {quota["QuotaName"]: quota for quota in listed}
        assert len(by_name) == len({quota["QuotaCode"] for quota in listed}) == len(listed)
        jobs = by_name[
            "Sum of in-progress and submitted batch inference jobs using a base model for Titan Text Embeddings V2"
        ]
        assert (jobs["QuotaCode"], jobs["Value"]) == ("L-1AC1CABC", 7)
        for call in (quotas.get_service_quota, quotas.get_aws_default_service_quota):
            found = call(ServiceCode="bedrock", QuotaCode="L-6F2B2616")["Quota"]
            assert (found["Value"], found["QuotaName"].split(" for ")[0]) == (
                100, "Minimum number of records per batch inference job",
            )  # fmt: skip
        quotas.list_aws_default_service_quotas(ServiceCode="bedrock")
        expect("NoSuchResourceException", quotas.get_service_quota, ServiceCode="bedrock", QuotaCode="L-NONE")
        expect("NoSuchResourceException", quotas.list_service_quotas, ServiceCode="nothing")
        expect(
            "InvalidPaginationTokenException",
            quotas.list_service_quotas,
            ServiceCode="bedrock",
            NextToken="eA==",
        )
        expect("IllegalArgumentException", quotas.list_service_quotas, ServiceCode="bedrock", MaxResults=101)
    assert {operation for operation, _ in seen} == {
        "ListServiceQuotas", "GetServiceQuota", "GetAWSDefaultServiceQuota", "ListAWSDefaultServiceQuotas",
    }  # fmt: skip


def test_other_services_are_motos() -> None:
    with aws() as cloud:
        assert cloud.client("sts").get_caller_identity()["Account"] == "123456789012"
        topic = cloud.client("sns").create_topic(Name="topic")["TopicArn"]
        assert topic.startswith("arn:aws:sns:us-east-1")
        address = cloud.s3.generate_presigned_url("list_objects_v2", Params={"Bucket": cloud.bucket})
        with urllib.request.urlopen(address) as reply:
            assert b"ListBucketResult" in reply.read()


def lists(cloud: Aws, **wanted: Any) -> list[str]:
    found = cloud.bedrock.get_paginator("list_model_invocation_jobs").paginate(**wanted)
    return [job["jobName"] for page in found for job in page["invocationJobSummaries"]]


def test_listing() -> None:
    with aws() as cloud:
        cloud.put_texts(2)
        arns: list[str] = []
        for name in ("a-1", "b-1", "a-2", "b-2", "a-3"):
            cloud.server.set_clock(advance=5)
            arns.append(cloud.create(jobName=name))
        assert lists(cloud) == ["a-3", "b-2", "a-2", "b-1", "a-1"]
        assert lists(cloud, maxResults=2, sortBy="CreationTime", sortOrder="Ascending") == [
            "a-1",
            "b-1",
            "a-2",
            "b-2",
            "a-3",
        ]
        assert lists(cloud, nameContains="b-", maxResults=1) == ["b-2", "b-1"]
        middle = cloud.get(arns[2])["submitTime"]
        assert lists(cloud, submitTimeAfter=middle) == ["a-3", "b-2"]
        assert lists(cloud, submitTimeBefore=middle) == ["b-1", "a-1"]
        cloud.reach(arns[0])
        assert "a-1" in lists(cloud, statusEquals="Completed")
        assert lists(cloud, statusEquals="Failed") == []
        other = cloud.client("bedrock", region="eu-west-1")
        assert other.list_model_invocation_jobs()["invocationJobSummaries"] == []


def test_a_page_goes_on_where_the_last_one_ended_though_jobs_come_and_go() -> None:
    with aws() as cloud:
        cloud.put_texts(2)
        for number in range(4):
            cloud.server.set_clock(advance=1)
            cloud.create(jobName=f"j-{number}")
        first = cloud.bedrock.list_model_invocation_jobs(maxResults=2, statusEquals="Submitted")
        cloud.server.set_clock(advance=1000)
        cloud.create(jobName="new")
        second = cloud.bedrock.list_model_invocation_jobs(maxResults=2, nextToken=first["nextToken"])
        assert [job["jobName"] for job in first["invocationJobSummaries"]] == ["j-3", "j-2"]
        assert [job["jobName"] for job in second["invocationJobSummaries"]] == ["j-1", "j-0"]
        assert "nextToken" not in second
