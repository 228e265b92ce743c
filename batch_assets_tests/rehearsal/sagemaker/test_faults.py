"""What befalls transform jobs and their events."""

import json
from typing import Any

from batch_assets_tests.rehearsal.sagemaker.cloud import Cloud, cloud
from batch_assets_tests.waiting import wait_until


def ended(where: Cloud, **changes: Any) -> tuple[str, str]:
    done = where.transform(**changes)
    return done["TransformJobStatus"], done.get("FailureReason", "").split(":")[0]


def test_jobs_that_fail_as_a_whole_leave_nothing() -> None:
    with cloud(transform={"fail": 1}) as where:
        where.put_lines("a.jsonl", ["one"])
        assert ended(where) == ("Failed", "AlgorithmError")
        where.server.scenario = where.server.scenario.changed({"transform": {"no_capacity": 1}})
        assert ended(where) == ("Failed", "CapacityError")
        assert where.written() == []
        assert where.server.books.transforms[where.describe("job-2")["TransformJobArn"]].seconds == 0


def test_objects_that_fail_by_chance_may_fare_better_in_the_next_job() -> None:
    with cloud(transform={"fail_object": 0.5}, seed=4) as where:
        for number in range(4):
            where.put_lines(f"{number}.jsonl", [f"text {number}"])
        assert ended(where) == ("Failed", "ClientError")
        first = set(where.written())
        assert 0 < len(first) < 4
        for _ in range(8):
            where.transform()
        assert len(where.written()) == 4


def test_outputs_that_come_late_or_never() -> None:
    with cloud(output={"late": 1, "late_seconds": [10**7, 10**7]}) as where:
        where.put_lines("a.jsonl", ["one"])
        assert ended(where) == ("Completed", "") and where.written() == []
        where.server.set_clock(advance=10**7 + 1)
        wait_until(lambda: where.written() == ["out/a.jsonl.out"], where.written)
    with cloud(transform={"absent_objects": 1}) as where:
        where.put_lines("a.jsonl", ["one"])
        assert ended(where) == ("Completed", "") and where.written() == []
        assert where.server.books.as_dict()["records"]["spoiled"] == 1


def test_stopping() -> None:
    with cloud() as where:
        where.put_lines("a.jsonl", ["one"])
        name = where.start()
        where.server.set_clock(advance=300)
        where.sagemaker.stop_transform_job(TransformJobName=name)
        assert where.end(name)["TransformJobStatus"] == "Stopped" and where.written() == []
        where.server.scenario = where.server.scenario.changed({"transform": {"stop_race": 1}})
        name = where.start()
        where.server.set_clock(advance=300)
        where.describe(name)
        where.sagemaker.stop_transform_job(TransformJobName=name)
        assert where.end(name)["TransformJobStatus"] == "Completed"


def test_events_tell_each_state_with_times_of_either_form() -> None:
    with cloud() as where:
        sqs, events = where.client("sqs"), where.client("events")
        url = sqs.create_queue(QueueName=where.bucket)["QueueUrl"]
        pattern = {"source": ["aws.sagemaker"], "detail-type": ["SageMaker Transform Job State Change"]}
        events.put_rule(Name=where.bucket, EventPattern=json.dumps(pattern))
        arn = f"arn:aws:sqs:us-east-1:123456789012:{where.bucket}"
        events.put_targets(Rule=where.bucket, Targets=[{"Id": "queue", "Arn": arn}])
        where.put_lines("a.jsonl", ["one"])
        for _ in range(2):
            where.transform(Tags=[{"Key": "team", "Value": "search"}])
        found: list[Any] = []
        while len(found) < 4:
            told = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
            found += [json.loads(message["Body"]) for message in told]
        assert [(each["detail"]["TransformJobName"], each["detail"]["TransformJobStatus"]) for each in found] == [
            ("job-1", "InProgress"), ("job-1", "Completed"), ("job-2", "InProgress"), ("job-2", "Completed"),
        ]  # fmt: skip
        last = found[3]["detail"]
        assert found[3]["resources"] == [last["TransformJobArn"]] and last["Tags"] == {"team": "search"}
        assert {type(each["detail"]["CreationTime"]) for each in found} == {int, str}
        events.remove_targets(Rule=where.bucket, Ids=["queue"])
        events.delete_rule(Name=where.bucket)
