"""State-change events, from the rehearsal through EventBridge rules into queues."""

import json
import re
from typing import Any

from batch_assets_tests.rehearsal.aws import Aws, aws
from batch_assets_tests.waiting import wait_until

LIFE = ["Submitted", "Validating", "Scheduled", "InProgress", "Completed"]


def queue_for(cloud: Aws, **detail: Any) -> str:
    """A queue that a rule forwards the account's Bedrock events to, made as a user makes it."""
    name = f"{cloud.bucket}-events"
    sqs, events = cloud.client("sqs"), cloud.client("events")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    pattern = {"source": ["aws.bedrock"], "detail-type": ["Batch Inference Job State Change"]}
    events.put_rule(Name=name, EventPattern=json.dumps(pattern | ({"detail": detail} if detail else {})))
    arn = f"arn:aws:sqs:us-east-1:123456789012:{name}"
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
    return url


def drain(cloud: Aws, url: str, least: int) -> list[dict[str, Any]]:
    """All messages, once there are at least so many."""
    sqs = cloud.client("sqs")
    bodies: list[dict[str, Any]] = []

    def drained() -> bool:
        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        bodies.extend(json.loads(message["Body"]) for message in found)
        return not found and len(bodies) >= least

    wait_until(drained, lambda: bodies)
    return bodies


def test_each_state_is_told_in_order() -> None:
    with aws() as cloud:
        url = queue_for(cloud)
        cloud.put_texts(2)
        done = cloud.run()
        events = drain(cloud, url, 5)
        assert [event["detail"]["status"] for event in events] == LIFE
        event = events[-1]
        assert (event["source"], event["account"], event["region"]) == (
            "aws.bedrock",
            "123456789012",
            "us-east-1",
        )
        assert event["resources"] == [event["detail"]["batchJobArn"]] == [done["jobArn"]]
        assert event["detail"]["batchJobName"] == done["jobName"]
        assert event["detail"]["batchModelId"].endswith("::foundation-model/amazon.titan-embed-text-v2:0")
        # Not ISO 8601, as in AWS's own example.
        assert re.fullmatch(r"\w{3} \w{3} \d\d \d\d:\d\d:\d\d UTC \d{4}", event["time"])
        created = event["detail"]["creationTime"]
        assert re.fullmatch(r"\w{3} \d{1,2}, \d{4}, \d{1,2}:\d\d:\d\d [AP]M", created)


def test_a_rule_may_forward_the_ends_only() -> None:
    with aws() as cloud:
        url = queue_for(cloud, status=["Completed", "Failed"])
        cloud.put_texts(2)
        cloud.run()
        assert [event["detail"]["status"] for event in drain(cloud, url, 1)] == ["Completed"]


def test_a_topic_forwards_too() -> None:
    with aws() as cloud:
        sns, sqs, events = cloud.client("sns"), cloud.client("sqs"), cloud.client("events")
        topic = sns.create_topic(Name=cloud.bucket)["TopicArn"]
        url = sqs.create_queue(QueueName=cloud.bucket)["QueueUrl"]
        arn = f"arn:aws:sqs:us-east-1:123456789012:{cloud.bucket}"
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        events.put_rule(Name=cloud.bucket, EventPattern=json.dumps({"source": ["aws.bedrock"]}))
        events.put_targets(Rule=cloud.bucket, Targets=[{"Id": "topic", "Arn": topic}])
        cloud.put_texts(2)
        cloud.run()
        told = [json.loads(message["Message"])["detail"]["status"] for message in drain(cloud, url, 5)]
        assert told == LIFE


def test_events_dropped_doubled_and_swapped() -> None:
    with aws(events={"dropped": 1}) as cloud:
        url = queue_for(cloud)
        cloud.put_texts(2)
        cloud.run()
        assert drain(cloud, url, 0) == []
    with aws(events={"doubled": 1}) as cloud:
        url = queue_for(cloud)
        cloud.put_texts(2)
        cloud.run()
        assert [event["detail"]["status"] for event in drain(cloud, url, 10)] == sorted(
            LIFE * 2, key=LIFE.index
        )
    with aws(events={"swapped": 0.5}, seed=3) as cloud:
        url = queue_for(cloud)
        cloud.put_texts(2)
        cloud.run()
        told = [event["detail"]["status"] for event in drain(cloud, url, 5)]
        assert sorted(told) == sorted(LIFE) and told != LIFE


def test_late_events_come_late() -> None:
    late = 10**7  # on a busy machine a job is waited for by many steps of the clock
    with aws(events={"late": 1, "late_seconds": [late, late]}) as cloud:
        url = queue_for(cloud)
        cloud.put_texts(2)
        cloud.run()
        assert drain(cloud, url, 0) == []
        cloud.server.set_clock(advance=late + 1)
        assert len(drain(cloud, url, 5)) == 5
