"""Whose a job is that Bedrock tells of: it names models in other ways than it was asked by."""

from dataclasses import replace

import pytest

from batch_assets.executors.base import JobState
from batch_assets.executors.bedrock.account import BedrockAccount
from batch_assets.executors.bedrock.executor import BedrockExecutor
from batch_assets.executors.bedrock.places import places
from batch_assets.executors.bedrock.service import asked
from batch_assets.executors.jobs import JobDescription, RequestFile
from batch_assets.executors.service_jobs import ServiceJob
from batch_assets_tests.executors.bedrock.builders import NOVA_CHAT, pipeline

ARN = "arn:aws:bedrock:us-east-1:123456789012"
FOUNDATION = "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0"
ANOTHER = "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0"
PROFILE = f"{ARN}:application-inference-profile/a1b2c3d4e5f6"
CUSTOM = f"{ARN}:custom-model/amazon.nova-lite-v1:0:300k/abcdefghijkl"
STAGING = "s3://bucket/staging"


@pytest.mark.parametrize(
    ("asked_for", "told", "ours"),
    [
        (NOVA_CHAT, FOUNDATION, True),
        (NOVA_CHAT, f"{ARN}:inference-profile/{NOVA_CHAT}", True),
        ("amazon.nova-lite-v1:0", NOVA_CHAT, True),
        (NOVA_CHAT, ANOTHER, False),
        (NOVA_CHAT, f"{ARN}:inference-profile/us.amazon.nova-pro-v1:0", False),
        (PROFILE, PROFILE, True),
        (PROFILE, FOUNDATION, True),
        (PROFILE, f"{ARN}:inference-profile/{NOVA_CHAT}", True),
        (NOVA_CHAT, PROFILE, True),
        (NOVA_CHAT, "", True),
        (PROFILE, f"{ARN}:application-inference-profile/f6e5d4c3b2a1", False),
        (f"{ARN}:provisioned-model/abcdefghijkl", FOUNDATION, True),
        (CUSTOM, CUSTOM, True),
        (CUSTOM, CUSTOM.replace("abc", "xyz"), False),
    ],
)
def test_a_job_is_ours_unless_its_model_is_plainly_another(asked_for: str, told: str, ours: bool) -> None:
    executor = make(asked_for)
    job = describe(executor)
    found = job_at_service(executor, job, told)
    assert executor.is_ours(found, [job]) is ours
    assert executor.is_same_model(found) is ours


def test_a_job_of_other_places_is_not_ours_whatever_its_model() -> None:
    executor = make(PROFILE)
    job = describe(executor)
    elsewhere = asked(f"{STAGING}/others/requests/", f"{STAGING}/others/results/")
    assert not executor.is_ours(replace(job_at_service(executor, job, FOUNDATION), asked=elsewhere), [job])


def test_a_job_of_others_takes_a_slot_only_of_a_model_that_is_known_to_be_the_same() -> None:
    executor = make(PROFILE)
    others = job_at_service(executor, describe(executor), FOUNDATION, name="nightly-report-17")
    assert not executor.is_same_model(others)


def make(model_id: str) -> BedrockExecutor:
    settings = pipeline(model_id, task="generate", executor={"staging": STAGING, "region": "us-east-1"})
    return BedrockAccount().executor(settings)


def describe(executor: BedrockExecutor) -> JobDescription:
    return JobDescription(
        pipeline="texts",
        shard="g0001-00000",
        fence=1,
        attempt=1,
        kind="batch",
        fingerprint=executor.fingerprint(),
        digest="0123456789abcdef",
        staging=STAGING,
        files=(RequestFile("jobs/g0001-00000/1/requests-012345/part-00000.jsonl", 1, 1, ""),),
        records=1,
        bytes=1,
        bound_usd=0.0,
        ordinals=[(0, 0)],
    )


def job_at_service(
    executor: BedrockExecutor, job: JobDescription, model: str, name: str | None = None
) -> ServiceJob:
    """The job as Bedrock tells of it."""
    name = name or executor.submission_name([job.key])[1]
    arn = f"{ARN}:model-invocation-job/abcdefghijkl"
    return ServiceJob(arn, name, model, JobState.RUNNING, asked=asked(*places(name, [job])))
