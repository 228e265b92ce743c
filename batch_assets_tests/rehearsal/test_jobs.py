"""The life of jobs: states, validation, idempotency, quota modes, stopping, expiry."""

import itertools
from typing import Any

import pytest
from botocore.exceptions import ClientError

from batch_assets.rehearsal.faults import Scenario
from batch_assets_tests.rehearsal.aws import Aws, aws, request
from batch_assets_tests.waiting import wait_until


def code_of(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return error.value.response["Error"]["Code"]


def counts(job: dict[str, Any]) -> tuple[int, int, int, int]:
    return tuple(job[f"{name}RecordCount"] for name in ("total", "processed", "success", "error"))  # type: ignore[return-value]


def test_a_calm_job() -> None:
    with aws() as cloud:
        cloud.put_texts(20)
        arn = cloud.create()
        assert cloud.get(arn)["status"] == "Submitted"
        for status in ("Validating", "Scheduled"):
            assert counts(cloud.reach(arn, status, step=5)) == (0, 0, 0, 0)
        running = cloud.reach(arn, "InProgress", step=5)
        assert counts(running)[0] == 20 and "endTime" not in running
        done = cloud.reach(arn)
        assert done["status"] == "Completed" and counts(done) == (20, 20, 20, 0)
        assert done["submitTime"] < done["endTime"] < done["jobExpirationTime"]
        results = cloud.results(done)
        assert sorted(result["recordId"] for result in results) == [f"{number:011d}" for number in range(20)]
        assert [result["recordId"] for result in results] != sorted(result["recordId"] for result in results)
        assert all(result["modelInput"]["inputText"].startswith("text number") for result in results)
        assert cloud.manifest(done) == {
            "totalRecordCount": 20, "processedRecordCount": 20, "successRecordCount": 20, "errorRecordCount": 0,
            "inputTokenCount": sum(result["modelOutput"]["inputTextTokenCount"] for result in results),
            "outputTokenCount": 0,
        }  # fmt: skip


def test_every_jsonl_file_of_the_folder_has_its_results() -> None:
    with aws() as cloud:
        cloud.put_texts(3)
        cloud.put([{"modelInput": request(9)["modelInput"]}], "in/sub/b.jsonl")
        cloud.put_texts(3, "in/other.txt")
        cloud.put_texts(3, "input/not-in-the-folder.jsonl")
        done = cloud.run()
        assert counts(done)[0] == 4
        assert [key.split("/", 2)[2] for key in cloud.written()] == [
            "a.jsonl.out",
            "manifest.json.out",
            "sub/b.jsonl.out",
        ]
        # A record without an id gets one.
        assert cloud.results(done, "sub/b.jsonl.out")[0]["recordId"]
        one_file = {"s3InputDataConfig": {"s3Uri": f"s3://{cloud.bucket}/in/a.jsonl"}}
        assert counts(cloud.run(inputDataConfig=one_file))[0] == 3


@pytest.mark.parametrize(
    ("lines", "scenario", "words"),
    [
        (
            [request(1)],
            {"quotas": {"min_records": 2}},
            "contains less records (1) than the required minimum of 2",
        ),
        ([request(1), request(2)], {"quotas": {"max_records": 1}}, "more records (2) than the maximum of 1"),
        ([request(1), request(2)], {"quotas": {"max_file_records": 1}}, "a.jsonl has 2 records"),
        ([request(1)], {"quotas": {"max_file_bytes": 50}}, "exceeds the size"),
        ([request(1)], {"quotas": {"max_job_bytes": 50}}, "exceeds the batch job size"),
        ([request(1), "{not json"], {}, "Line 2 of the file a.jsonl is no valid JSON"),
        ([request(1), {"recordId": "1"}], {}, "Line 2 of the file a.jsonl has no object modelInput"),
        (
            [request(1)],
            {"jobs": {"role_reads_buckets": False}},
            "is not authorized to access the S3 location",
        ),
        ([request(1)], {"jobs": {"fail_validation": 1}}, "Internal error"),
    ],
)
def test_validation_fails_the_job_not_the_call(
    lines: list[Any], scenario: dict[str, Any], words: str
) -> None:
    with aws(**scenario) as cloud:
        cloud.put(lines)
        failed = cloud.run()
        assert failed["status"] == "Failed" and words in failed["message"]
        assert counts(failed) == (0, 0, 0, 0) and cloud.written() == []


def test_buckets_that_cannot_be_used() -> None:
    with aws() as cloud:
        assert "No files with the extension .jsonl" in cloud.run()["message"]
        nowhere = {"s3InputDataConfig": {"s3Uri": "s3://no-such-bucket-anywhere/in/"}}
        assert "NoSuchBucket" in cloud.run(inputDataConfig=nowhere)["message"]
        west = cloud.client("s3", region="eu-west-1")
        name = f"{cloud.bucket}-west"
        west.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        cloud.put_texts(3)
        there = {"s3OutputDataConfig": {"s3Uri": f"s3://{name}/out/"}}
        assert f"{name} is in eu-west-1, not in us-east-1" in cloud.run(outputDataConfig=there)["message"]
        cloud.server.scenario = cloud.server.scenario.changed({"calls": {"check_buckets": True}})
        create = cloud.bedrock.create_model_invocation_job
        assert code_of(create, **cloud.creation(outputDataConfig=there)) == "ValidationException"


def test_a_token_makes_one_job() -> None:
    with aws() as cloud:
        cloud.put_texts(2)
        first = cloud.create(clientRequestToken="once", jobName="first")
        assert cloud.create(clientRequestToken="once", jobName="another") == first
        assert len(cloud.server.jobs.all()) == 1
        create = cloud.bedrock.create_model_invocation_job
        assert code_of(create, **cloud.creation(jobName="first")) == "ConflictException"
        cloud.reach(first)
        # The name stays taken when the job has ended.
        assert code_of(create, **cloud.creation(jobName="first")) == "ConflictException"


def test_a_lost_response_leaves_a_job_that_a_retry_finds() -> None:
    with aws(calls={"lost_responses": 0.7}) as cloud:
        cloud.put_texts(2)
        failed = 0
        patient = cloud.client("bedrock", retries=True)
        for number in range(12):
            creation = cloud.creation(jobName=f"job-{number}", clientRequestToken=f"token{number}")
            for client in (cloud.bedrock, patient, patient, patient):
                try:
                    client.create_model_invocation_job(**creation)
                    break
                except Exception:
                    failed += 1
        assert failed > 3
        jobs = cloud.bedrock.list_model_invocation_jobs()["invocationJobSummaries"]
        assert sorted(job["jobName"] for job in jobs) == sorted(f"job-{number}" for number in range(12))
        assert cloud.server.books.calls["CreateModelInvocationJob"]["lost"] > 0


def test_a_full_quota_rejects() -> None:
    with aws(quotas={"concurrent_jobs": 2}) as cloud:
        cloud.put_texts(2)
        first, _ = cloud.create(), cloud.create()
        create = cloud.bedrock.create_model_invocation_job
        assert code_of(create, **cloud.creation()) == "ServiceQuotaExceededException"
        cloud.create(modelId="anthropic.claude-3-haiku-20240307-v1:0")  # another model has its own slots
        # The same model by another of its names has not.
        arn = "arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-embed-text-v2:0"
        assert code_of(create, **cloud.creation(modelId=arn)) == "ServiceQuotaExceededException"
        cloud.reach(first)
        cloud.create()


@pytest.mark.parametrize(
    ("mode", "state"), [("wait_submitted", "Submitted"), ("wait_scheduled", "Scheduled")]
)
def test_a_full_quota_lets_wait(mode: str, state: str) -> None:
    timing = {"submitted": [5, 5], "validating": [20, 20], "scheduled": [30, 30], "running": [20_000] * 2}
    with aws(quotas={"concurrent_jobs": 1, "when_full": mode}, timing=timing) as cloud:
        cloud.put_texts(2)
        arns = [cloud.create() for _ in range(3)]
        states: list[str] = []

        def waiting() -> bool:
            states[:] = [job.status for job in cloud.server.jobs.all()]
            if sorted(states) != sorted(["InProgress", state, state]):
                cloud.server.set_clock(advance=5)
                return False
            return True

        wait_until(waiting, lambda: states)
        cloud.server.set_clock(advance=200)
        cloud.server.catch_up()
        assert [cloud.get(arn)["status"] for arn in arns] == states
        for arn in arns:
            assert cloud.reach(arn)["status"] == "Completed"
        began = sorted((job.began, job.ended) for job in cloud.server.jobs.all())
        assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(began))


def test_stopping() -> None:
    with aws(timing={"running": [1000, 1000]}) as cloud:
        cloud.put_texts(100)
        early, late = cloud.create(), cloud.create()
        cloud.bedrock.stop_model_invocation_job(jobIdentifier=early)
        assert cloud.get(early)["status"] == "Stopping"
        assert code_of(cloud.bedrock.stop_model_invocation_job, jobIdentifier=early) == "ValidationException"
        stopped = cloud.reach(early)
        assert stopped["status"] == "Stopped" and counts(stopped) == (0, 0, 0, 0)
        cloud.reach(late, "InProgress")
        cloud.server.set_clock(advance=400)
        cloud.bedrock.stop_model_invocation_job(jobIdentifier=late.rsplit("/", 1)[1])
        stopped = cloud.reach(late, step=5)
        # What was done by then is there, and paid for.
        assert stopped["status"] == "Stopped" and 30 <= counts(stopped)[1] <= 60
        assert (
            len(cloud.results(stopped))
            == counts(stopped)[1]
            == cloud.server.books.as_dict()["records"]["paid"]
        )


def test_a_job_may_be_done_just_when_it_should_stop() -> None:
    with aws(jobs={"stop_race": 1}) as cloud:
        cloud.put_texts(5)
        arn = cloud.create()
        cloud.reach(arn, "InProgress")
        with pytest.raises(ClientError, match="State was: Completed"):
            cloud.bedrock.stop_model_invocation_job(jobIdentifier=arn)
        assert len(cloud.results(cloud.get(arn))) == 5


def test_a_job_that_never_begins_expires() -> None:
    with aws(jobs={"expire": 1}) as cloud:
        cloud.put_texts(5)
        arn = cloud.create(timeoutDurationInHours=24)
        expired = cloud.reach(arn, step=3600)
        assert expired["status"] == "Expired" and expired["endTime"] >= expired["jobExpirationTime"]
        assert (expired["jobExpirationTime"] - expired["submitTime"]).total_seconds() == 24 * 3600
        assert cloud.written() == [] and cloud.server.books.as_dict()["records"]["paid"] == 0


@pytest.mark.parametrize("scenario", [{"jobs": {"partial": 1}}, {"timing": {"running": [100_000, 150_000]}}])
def test_time_runs_out_with_a_part_of_the_records_done(scenario: dict[str, Any]) -> None:
    with aws(**scenario) as cloud:
        cloud.put_texts(200)
        done = cloud.reach(cloud.create(), step=200 if "jobs" in scenario else 500)
        assert done["status"] == "PartiallyCompleted"
        total, processed, success, error = counts(done)
        assert total == 200 and success + error == processed < 200 and success > 0
        results = cloud.results(done)
        expired = [result for result in results if result.get("error", {}).get("expired")]
        assert len(results) == processed and len(expired) == error > 0
        assert cloud.server.books.as_dict()["records"]["paid"] == success


def test_a_job_may_fail_while_it_runs() -> None:
    with aws(jobs={"fail_running": 1}) as cloud:
        cloud.put_texts(5)
        failed = cloud.run()
        assert failed["status"] == "Failed" and failed["message"] and cloud.written() == []


def test_calls_are_throttled_per_second() -> None:
    with aws(calls={"per_second": {"ListModelInvocationJobs": 3}}) as cloud:
        for _ in range(3):
            cloud.bedrock.list_model_invocation_jobs()
        assert code_of(cloud.bedrock.list_model_invocation_jobs) == "ThrottlingException"
        cloud.client("bedrock", retries=True).list_model_invocation_jobs()


def test_others_have_jobs_too() -> None:
    model = "amazon.titan-embed-text-v2:0"
    with aws(tenants={"jobs": {model: 2}}, quotas={"concurrent_jobs": 3}) as cloud:
        cloud.put_texts(2)
        mine = cloud.create()
        listed = cloud.bedrock.list_model_invocation_jobs()["invocationJobSummaries"]
        assert len(listed) == 3 and {job["modelId"] for job in listed} == {model}
        assert (
            code_of(cloud.bedrock.create_model_invocation_job, **cloud.creation())
            == "ServiceQuotaExceededException"
        )
        assert cloud.reach(mine)["status"] == "Completed"
        cloud.server.set_clock(advance=5000)
        names = names_after(cloud, 5)
        assert len(names) == len(set(names))
        assert cloud.server.books.as_dict()["records"]["processed"] == 2


def names_after(cloud: Aws, jobs: int) -> list[str]:
    for _ in range(200):
        cloud.server.set_clock(advance=100)
        names = [
            job["jobName"] for job in cloud.bedrock.list_model_invocation_jobs()["invocationJobSummaries"]
        ]
        if len(names) >= jobs:
            return names
    raise AssertionError(names)


def test_the_same_seed_gives_the_same_fate() -> None:
    from batch_assets.rehearsal.job import Fate

    stormy = Scenario.load("stormy")
    assert Fate.draw(stormy, "job-1") == Fate.draw(stormy, "job-1") != Fate.draw(stormy, "job-2")
    assert Fate.draw(stormy.changed({"seed": 2}), "job-1") != Fate.draw(stormy, "job-1")
