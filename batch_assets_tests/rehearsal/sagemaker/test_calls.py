"""SageMaker's four calls: every reply is what botocore's model says, every refusal in AWS's words."""

from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from batch_assets_tests.rehearsal.sagemaker.cloud import Cloud, cloud
from batch_assets_tests.rehearsal.watching import expect, watch


def names(where: Cloud, **wanted: Any) -> list[str]:
    pages = where.sagemaker.get_paginator("list_transform_jobs").paginate(**wanted)
    return [job["TransformJobName"] for page in pages for job in page["TransformJobSummaries"]]


def test_every_reply() -> None:
    seen: set[tuple[str, str]] = set()
    with cloud(transform={"instances": {"ml.g5.xlarge": 3}}) as where:
        client = watch(where.sagemaker, seen)
        where.put_lines("a.jsonl", ["one", "two"])
        everything = where.wanted(
            TransformJobName="all",
            MaxConcurrentTransforms=4,
            MaxPayloadInMB=25,
            BatchStrategy="MultiRecord",
            ModelClientConfig={"InvocationsTimeoutInSeconds": 60, "InvocationsMaxRetries": 0},
            Environment={"POOLING": "mean"},
            DataCaptureConfig={"DestinationS3Uri": "s3://captured/"},
            Tags=[{"Key": "team", "Value": "search ä"}],
        )
        arn = client.create_transform_job(**everything)["TransformJobArn"]
        assert arn == "arn:aws:sagemaker:us-east-1:123456789012:transform-job/all"
        begun = where.describe("all")
        assert begun["TransformJobStatus"] == "InProgress" and "TransformStartTime" not in begun
        done = where.end("all")
        assert done["TransformJobStatus"] == "Completed" and "FailureReason" not in done
        assert done["CreationTime"] < done["TransformStartTime"] < done["TransformEndTime"]
        assert done["ModelClientConfig"]["InvocationsMaxRetries"] == 0
        refused = expect("ValidationException", client.stop_transform_job, TransformJobName="all")
        assert refused == "The request was rejected because the transform job is in status Completed."
        assert "must be unique" in expect("ResourceInUse", client.create_transform_job, **everything)

        three = {"InstanceType": "ml.g5.xlarge", "InstanceCount": 3}
        where.start(TransformJobName="b", TransformResources=three)
        message = expect("ResourceLimitExceeded", client.create_transform_job, **where.wanted())
        assert (
            "'ml.g5.xlarge for transform job usage' is 3 Instances, with current utilization of 3" in message
        )
        client.stop_transform_job(TransformJobName="b")
        assert names(where, StatusEquals="Stopping") == ["b"]
        assert where.end("b")["TransformJobStatus"] == "Stopped"
        where.start(TransformJobName="c")

        absent = where.wanted(ModelName="a-model-absent")
        assert "Could not find model" in expect("ValidationException", client.create_transform_job, **absent)
        expect("ValidationException", client.describe_model, ModelName="a-model-absent")
        assert client.describe_model(ModelName="any")["ModelArn"].endswith(":model/any")
        for call in (client.describe_transform_job, client.stop_transform_job):
            assert "Could not find requested job" in expect("ValidationException", call, TransformJobName="x")
        where.server.scenario = where.server.scenario.changed(
            {"transform": {"not_found": "ResourceNotFound"}}
        )
        expect("ResourceNotFound", client.describe_transform_job, TransformJobName="x")
        assert where.server.scenario.transform.instances == {"ml.g5.xlarge": 3}
        for change, code in (
            ({"throttled": 1}, "ThrottlingException"), ({"server_errors": 1}, "InternalFailure"),
        ):  # fmt: skip
            where.server.scenario = where.server.scenario.changed({"calls": change})
            expect(code, client.list_transform_jobs)
            where.server.scenario = where.server.scenario.changed({"calls": dict.fromkeys(change, 0)})
    assert {operation for operation, _ in seen} == {
        "CreateTransformJob", "DescribeTransformJob", "ListTransformJobs", "StopTransformJob", "DescribeModel",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"TransformJobName": "under_score"}, "Member must satisfy regular expression pattern"),
        ({"TransformJobName": "a" * 64}, "Member must have length less than or equal to 63"),
        ({"BatchStrategy": "Bogus"}, "Member must satisfy enum value set: [MultiRecord, SingleRecord]"),
        ({"MaxPayloadInMB": 50, "MaxConcurrentTransforms": 3}, "must not be above 100 MB"),
        ({"DataProcessing": {"InputFilter": "inputs"}}, "InputFilter is no valid JSONPath"),
        ({"DataProcessing": {"OutputFilter": "$" + "a" * 63}}, "length less than or equal to 63"),
        ({"TransformResources": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 101}}, "above 100"),
        ({"TransformResources": {"InstanceType": "t2.micro", "InstanceCount": 1}}, "enum value set"),
    ],
)
def test_requests_are_held_to_the_model(changes: dict[str, Any], words: str) -> None:
    with cloud() as where:
        assert words in expect(
            "ValidationException", where.sagemaker.create_transform_job, **where.wanted(**changes)
        )
        assert names(where) == []


def test_listing() -> None:
    with cloud() as where:
        where.put_lines("a.jsonl", ["one"])
        for name in ("a-1", "b-1", "a-2"):
            where.server.set_clock(advance=5)
            where.start(TransformJobName=name)
        assert names(where) == ["a-2", "b-1", "a-1"]
        assert names(where, SortBy="Name", SortOrder="Ascending", MaxResults=2) == ["a-1", "a-2", "b-1"]
        assert names(where, NameContains="a-", MaxResults=1) == ["a-2", "a-1"]
        middle = where.describe("b-1")["CreationTime"]
        assert names(where, CreationTimeAfter=middle) == ["a-2"]
        assert names(where, CreationTimeBefore=middle) == ["a-1"]
        where.end("a-1")
        assert "a-1" in names(where, LastModifiedTimeAfter=where.describe("a-2")["CreationTime"])
        assert names(where, StatusEquals="Failed") == []
        expect("ValidationException", where.sagemaker.list_transform_jobs, NextToken="nonsense")
        expect("ValidationException", where.sagemaker.list_transform_jobs, MaxResults=101)


def test_service_quotas_tell_the_instances() -> None:
    with cloud(transform={"instances": {"ml.m5.large": 0, "ml.g5.xlarge": 2}}) as where:
        pages = (
            where.client("service-quotas")
            .get_paginator("list_service_quotas")
            .paginate(ServiceCode="sagemaker")
        )
        found = {quota["QuotaName"]: quota for page in pages for quota in page["Quotas"]}
        assert found["ml.m5.large for transform job usage"]["Value"] == 0
        assert found["ml.m5.large for transform job usage"]["QuotaCode"] == "L-236AE59F"
        assert found["ml.g5.xlarge for transform job usage"]["Value"] == 2


def test_a_lost_response_leaves_a_job() -> None:
    with cloud(calls={"lost_responses": 1}, seed=1) as where:
        for _ in range(4):
            with pytest.raises((ConnectionClosedError, where.sagemaker.exceptions.ClientError)):
                where.start()
        assert len(names(where)) == 4
        assert where.server.books.calls["CreateTransformJob"]["lost"] > 0


def test_other_calls_of_sagemaker_are_motos() -> None:
    with cloud() as where:
        assert where.sagemaker.list_models()["Models"] == []
