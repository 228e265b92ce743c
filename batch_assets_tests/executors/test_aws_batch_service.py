"""What AWS Batch does not always say: which children an array has, or had."""

from botocore.exceptions import ClientError

from batch_assets.executors.aws_batch.service import AwsBatchService, service_job


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
