"""How jobs, arrays and their processes live at the rehearsal's AWS Batch."""

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from batch_assets.rehearsal.batch.job import Ending
from batch_assets.rehearsal.batch.retrying import is_retried
from batch_assets_tests.rehearsal.batch.cloud import cloud
from batch_assets_tests.waiting import wait_until

SHOW = "import json, os, sys; json.dump([dict(os.environ), sys.executable], open({file!r}, 'w'))"
FAIL_ONCE = "import os; raise SystemExit(3 if os.environ['AWS_BATCH_JOB_ATTEMPT'] == '1' else 0)"
FAIL_ONE = (
    "import os; ill = os.environ['AWS_BATCH_JOB_ARRAY_INDEX'] == '1'; print('one has failed' * ill); "
    "raise SystemExit(3 * ill)"
)
HANG = "import time; time.sleep(100_000)"
SPOT = [{"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}]


def test_a_process_has_the_environment_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("SECRET_OF_THIS_MACHINE", "x")
    with cloud() as where:
        where.define()
        overrides = {"environment": [{"name": "MINE", "value": "1"}]}
        plain = tmp_path / "plain.json"
        job = where.run(
            containerOverrides=overrides | {"command": ["python", "-S", "-c", SHOW.format(file=str(plain))]}
        )
        assert job["status"] == "SUCCEEDED", where.server.batch_jobs.log(
            where.server.batch_jobs.by_id[job["jobId"]]
        )
        variables, executable = json.loads(plain.read_text())
        assert Path(executable).samefile(sys.executable)
        assert variables.items() >= {
            "MINE": "1", "HF_HUB_OFFLINE": "1", "AWS_ENDPOINT_URL": where.server.endpoint, "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_BATCH_JOB_ID": job["jobId"], "AWS_BATCH_JOB_ATTEMPT": "1",
            "AWS_BATCH_JQ_NAME": "queue", "HOME": os.environ["HOME"],
        }.items()  # fmt: skip
        assert not {"PYTHONPATH", "SECRET_OF_THIS_MACHINE", "AWS_BATCH_JOB_ARRAY_INDEX"} & variables.keys()
        array = where.run(FAIL_ONE, size=2)
        assert [state for state, _ in where.children(array["jobId"])] == ["SUCCEEDED", "FAILED"]


def test_an_array_has_failed_when_all_have_ended_and_one_failed() -> None:
    with cloud() as where:
        where.define()
        done = where.run(FAIL_ONE, size=3, retryStrategy={"attempts": 2})
        assert (done["status"], done["statusReason"]) == ("FAILED", "Array Child Job failed")
        summary = done["arrayProperties"]["statusSummary"]
        assert (summary["SUCCEEDED"], summary["FAILED"]) == (2, 1)
        failed = where.describe(f"{done['jobId']}:1")
        assert [attempt["container"]["exitCode"] for attempt in failed["attempts"]] == [3, 3]
        assert where.began() == [1, 1, 2]
        with urllib.request.urlopen(f"{where.server.endpoint}/_rehearsal/jobs") as reply:
            (shown,) = json.loads(reply.read())
        assert shown["service"] == "batch" and "one has failed" in shown["failed"][failed["jobId"]]["log"]
        assert where.run(FAIL_ONCE, retryStrategy={"attempts": 2})["status"] == "SUCCEEDED"
        assert where.run("pass", parameters={"a": "b"}, jobDefinition="worker")["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("ending", "rules", "retried"),
    [
        (Ending(3, "exited"), [], True),
        (Ending(None, "Host EC2 (instance i-1) terminated."), SPOT, True),
        (Ending(3, "exited"), SPOT, False),
        (Ending(3, "exited"), [{"onExitCode": "13*", "action": "EXIT"}], True),
        (Ending(137, "exited"), [{"onExitCode": "13*", "onReason": "Out*", "action": "EXIT"}], True),
        (Ending(137, "exited", "OutOfMemoryError: x"), [{"onExitCode": "13*", "onReason": "Out*", "action": "EXIT"}],
         False),
        (Ending(137, "Job attempt duration exceeded timeout", timed_out=True), [], False),
    ],
)  # fmt: skip
def test_the_first_rule_that_matches_decides(ending: Ending, rules: Any, retried: bool) -> None:
    assert is_retried(ending, 1, 2, rules) is retried
    assert not is_retried(ending, 2, 2, rules)


def test_dependencies() -> None:
    with cloud(batch={"at_once": 1}) as where:
        where.define()
        first = where.submit(FAIL_ONE, size=2)
        each = where.submit("pass", size=2, dependsOn=[{"jobId": first, "type": "N_TO_N"}])
        after = where.submit("pass", dependsOn=[{"jobId": each}])
        one_by_one = where.submit("pass", size=3, dependsOn=[{"type": "SEQUENTIAL"}])
        assert where.reach(each)["status"] == "FAILED"
        assert where.children(each)[0][0] == "SUCCEEDED"
        assert where.children(each)[1] == ("FAILED", "Dependent Job failed")
        assert where.reach(after)["statusReason"] == "Dependent Job failed"
        assert where.reach(one_by_one)["status"] == "SUCCEEDED"
        times = [where.describe(f"{one_by_one}:{index}") for index in range(3)]
        assert (
            times[0]["stoppedAt"] <= times[1]["startedAt"] and times[1]["stoppedAt"] <= times[2]["startedAt"]
        )
        # What it depends on is done already.
        assert where.run("pass", dependsOn=[{"jobId": one_by_one}])["status"] == "SUCCEEDED"


def test_ending_jobs_kills_their_processes() -> None:
    with cloud(batch={"at_once": 1}) as where:
        where.define()
        array = where.submit(HANG, size=2)
        where.reach(f"{array}:0", "RUNNING")
        where.batch.cancel_job(jobId=f"{array}:0", reason="too late")
        assert where.describe(f"{array}:0")["status"] == "RUNNING"
        where.batch.terminate_job(jobId=array, reason="enough")
        assert where.reach(array)["status"] == "FAILED"
        assert where.children(array) == [("FAILED", "enough")] * 2
        assert (done := where.describe(array))["statusReason"] == "enough" and done["isTerminated"]
        wait_until(lambda: not where.server.batch_jobs.processes, lambda: where.server.batch_jobs.processes)
        # One slot for processes: it is free again.
        assert where.run("pass")["status"] == "SUCCEEDED"
        where.submit(HANG)
        wait_until(lambda: where.server.batch_jobs.processes)
        # The rehearsal ends now, and waits for no process: this one would outlast the test's own limit.


def test_a_program_that_is_not_there() -> None:
    with cloud() as where:
        where.define()
        job = where.run(containerOverrides={"command": ["no-such-program"]})
        assert (job["status"], job["statusReason"]) == ("FAILED", "Task failed to start")
        assert job["container"]["reason"].startswith("CannotStartContainerError")


def test_virtual_time_is_spent_before_the_process_and_capacity_is_limited() -> None:
    with cloud(batch={"capacity": 1, "timing": {"running": [100, 100]}}) as where:
        where.define()
        array = where.submit("pass", size=2)
        where.reach(f"{array}:0", "RUNNING")
        where.server.set_clock(advance=99)
        assert where.describe(array)["arrayProperties"]["statusSummary"]["RUNNABLE"] == 1
        assert where.began() == []
        where.server.set_clock(advance=2)
        where.reach(f"{array}:1", "RUNNING")
        assert where.describe(f"{array}:0")["status"] == "SUCCEEDED" and where.began() == [1]
