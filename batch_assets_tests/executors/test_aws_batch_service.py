"""What AWS Batch does not always say: which children an array has, or had."""

from fnmatch import fnmatch

from botocore.exceptions import ClientError

from batch_assets.executors.aws_batch.requests import is_machine_lost, retry_strategy
from batch_assets.executors.aws_batch.service import AwsBatchService, service_job
from batch_assets.settings.aws_batch import RetrySettings

LOST = ("Host EC2 (instance i-0abc) terminated.", "Your Spot Task was interrupted.")


class Forgetful:
    def list_jobs(self, **call: object) -> dict[str, object]:
        raise ClientError({"Error": {"Code": "ClientException", "Message": "not found"}}, "ListJobs")


def test_the_children_of_a_forgotten_array_are_not_asked_for_ever() -> None:
    assert AwsBatchService(Forgetful(), Forgetful(), "queue").ended_children("1234") == {}


def test_an_array_without_a_summary_has_its_children_asked_for() -> None:
    told = {"jobId": "1234", "status": "PENDING"}
    summary = {"SUCCEEDED": 1, "RUNNING": 2}
    assert service_job({**told, "arrayProperties": {"size": 3}}).children == 3
    assert service_job({**told, "arrayProperties": {"size": 3, "statusSummary": summary}}).children == 1


def test_with_spot_only_a_lost_machine_is_answered_with_another_try() -> None:
    rules = retry_strategy(RetrySettings(attempts=3))["evaluateOnExit"]
    assert len(rules) <= 5, "AWS Batch takes no more"
    ends = {
        "RETRY": [{"onStatusReason": lost} for lost in LOST],
        # Whatever an end is told by, some rule ends it: one that none matches is tried again.
        "EXIT": [
            {"onReason": "OutOfMemoryError"},
            {"onExitCode": "1"},
            {"onStatusReason": "Essential container in task exited"},
        ],
    }
    for action, told in ends.items():
        for end in told:
            [(name, value)] = end.items()
            first = next(rule for rule in rules if name in rule and fnmatch(value, rule[name]))
            assert first["action"] == action


def test_what_is_tried_again_for_its_machine_is_known_as_that_by_whoever_collects() -> None:
    assert all(is_machine_lost(f"{reason}, exit code 137") for reason in LOST)
    assert not is_machine_lost("Essential container in task exited, exit code 3")
