"""What befalls AWS Batch's jobs and their events."""

import json
from pathlib import Path
from typing import Any

from batch_assets_tests.rehearsal.batch.cloud import Cloud, cloud
from batch_assets_tests.rehearsal.batch.test_jobs import HANG, SPOT

NOTE = "import os, pathlib, sys, time; pathlib.Path({folder!r}, str(os.getpid())).touch(); {then}"


def spared(where: Cloud, **batch: Any) -> None:
    where.server.scenario = where.server.scenario.changed({"batch": batch})


def test_an_interrupted_attempt_is_tried_again_by_the_rules(tmp_path: Path) -> None:
    with cloud(batch={"interrupted": 1, "killed_after": [0, 0]}) as where:
        where.define()
        strategy: dict[str, Any] = {"attempts": 2, "evaluateOnExit": SPOT}
        job = where.run(HANG, retryStrategy=strategy)
        assert job["status"] == "FAILED" and where.began() == [2]
        for attempt in job["attempts"]:
            assert attempt["statusReason"].startswith("Host EC2 (instance i-")
            assert attempt["statusReason"].endswith(") terminated.")
            assert "exitCode" not in attempt["container"]
        # It strikes after the work is done, too: what was written stays, and the attempt counts as lost.
        spared(where, killed_after=[60, 60])
        program = NOTE.format(folder=str(tmp_path), then="pass")
        assert where.run(program, retryStrategy=strategy)["status"] == "FAILED"
        assert len(list(tmp_path.iterdir())) == 2


def test_a_crash_is_no_interruption() -> None:
    with cloud(batch={"crashed": 1, "killed_after": [0, 0]}) as where:
        where.define()
        job = where.run(HANG, retryStrategy={"attempts": 3, "evaluateOnExit": SPOT})
        assert job["status"] == "FAILED" and len(job["attempts"]) == 1
        assert job["container"]["exitCode"] == 137
        assert job["container"]["reason"].startswith("OutOfMemoryError")


def test_timeouts_end_attempts_for_good() -> None:
    with cloud(batch={"hangs": 1, "timeout_second": 0.001}) as where:
        where.define()
        limited: dict[str, Any] = {
            "timeout": {"attemptDurationSeconds": 60},
            "retryStrategy": {"attempts": 3},
        }
        hanging = where.submit("pass", **limited)
        where.reach(hanging, "RUNNING")
        where.server.set_clock(advance=61)
        job = where.reach(hanging)
        assert job["statusReason"] == "Job attempt duration exceeded timeout" and where.began() == [0]
        # A process that takes too long, in real time.
        spared(where, hangs=0)
        job = where.run(HANG, **limited)
        assert job["statusReason"] == "Job attempt duration exceeded timeout"
        assert len(job["attempts"]) == 1


def test_a_child_may_run_twice_at_once(tmp_path: Path) -> None:
    # Each waits until it sees the other.
    both = f"\nwhile len(os.listdir({str(tmp_path)!r})) < 2: time.sleep(0.005)"
    with cloud(batch={"doubled": 1}) as where:
        where.define()
        job = where.run(NOTE.format(folder=str(tmp_path), then=both))
        assert job["status"] == "SUCCEEDED" and len(job["attempts"]) == 1
        assert len(list(tmp_path.iterdir())) == 2 and where.began() == [2]


def told(where: Cloud, least: int) -> list[dict[str, Any]]:
    sqs = where.client("sqs")
    url = sqs.get_queue_url(QueueName=where.bucket)["QueueUrl"]
    found: list[dict[str, Any]] = []
    while len(found) < least:
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        found += [json.loads(message["Body"]) for message in messages]
    return found


def test_events_of_children_and_arrays() -> None:
    with cloud() as where:
        sqs, events = where.client("sqs"), where.client("events")
        sqs.create_queue(QueueName=where.bucket)
        pattern = {"source": ["aws.batch"], "detail-type": ["Batch Job State Change"]}
        events.put_rule(Name=where.bucket, EventPattern=json.dumps(pattern))
        arn = f"arn:aws:sqs:us-east-1:123456789012:{where.bucket}"
        events.put_targets(Rule=where.bucket, Targets=[{"Id": "queue", "Arn": arn}])
        where.define()
        array = where.run("pass", size=2)
        found = told(where, 10)
        of: dict[str, list[str]] = {}
        for event in found:
            of.setdefault(event["detail"]["jobId"], []).append(event["detail"]["status"])
        # The submission itself is not told.
        assert of[array["jobId"]] == ["PENDING", "SUCCEEDED"]
        assert of[f"{array['jobId']}:1"] == ["RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED"]
        ends = {event["detail"]["jobId"]: event for event in found}
        child, parent = ends[f"{array['jobId']}:1"], ends[array["jobId"]]
        assert child["resources"] == [child["detail"]["jobArn"]]
        assert child["detail"]["arrayProperties"] == {"index": 1, "statusSummary": {}}
        assert (
            child["detail"]["container"]["exitCode"]
            == child["detail"]["attempts"][0]["container"]["exitCode"]
            == 0
        )
        assert parent["detail"]["arrayProperties"]["statusSummary"]["SUCCEEDED"] == 2
        # The scenario's general faults of events spare these: they are durable. Its own do not.
        where.server.scenario = where.server.scenario.changed({"events": {"dropped": 1}})
        where.run("pass")
        assert len(told(where, 4)) == 4
        spared(where, events={"doubled": 1})
        where.run("pass")
        assert len(told(where, 8)) == 8
        events.remove_targets(Rule=where.bucket, Ids=["queue"])
        events.delete_rule(Name=where.bucket)
