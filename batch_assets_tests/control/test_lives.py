"""Starting over at the same place: ledger and output root are gone, and the AWS account remembers all of it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.control import uploading
from batch_assets.control.descriptions import describe
from batch_assets.control.loop import take_turn
from batch_assets.executors.aws.names import Named
from batch_assets.executors.jobs import JobDescription
from batch_assets.ledger.states import State
from batch_assets_tests.command import published, some_records, write_records
from batch_assets_tests.rehearsed import DIMENSIONS, ROLE, TITAN, Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site, assert_every_record_once, make_site
from batch_assets_tests.transforming import INSTANCE, make_transform_site
from batch_assets_tests.waiting import wait_until
from batch_assets_tests.workers import assert_all_published, make_worker_site

Rehearse = Callable[..., Rehearsal]
Make = Callable[..., Site]
SHARDS, LIVES = 2, 4
MAKERS = [make_site, make_transform_site]


def next_life(site: Site, life: int) -> Site:
    """The same pipeline as somebody begins it anew, with a ledger and an output root of its own."""
    shutil.rmtree(site.folder / "out", ignore_errors=True)
    for key in site.rehearsal.objects("out/"):
        site.rehearsal.client("s3").delete_object(Bucket=site.rehearsal.bucket, Key=key)
    site.ledger_name = f"ledger-{life}"
    return site.opened_again()


def width_of(site: Site) -> int:
    return len(published(site.folder / "out")["embedding"][0])


def assert_embedded_at_once(site: Site, width: int = DIMENSIONS) -> None:
    """Every record by this life's own jobs, none of which was in vain."""
    assert set(site.states()) == {State.COLLECTED}
    assert {row.attempt for row in site.rows()} == {1}
    rows = site.publish(site.open())
    assert rows["record_id"].to_list() == [record["id"] for record in some_records(SHARDS * PER_SHARD)]
    assert width_of(site) == width


def test_four_lives_at_bedrock(rehearse: Rehearse, tmp_path: Path) -> None:
    rehearsal = rehearse(calls={"lost_responses": 0.5})
    site = make_site(rehearsal, tmp_path, SHARDS)
    for life in range(LIVES):
        site = next_life(site, life) if life else site
        width = 512 if life == 1 else DIMENSIONS
        model = site.settings.model.model_copy(update={"dimensions": width})
        site.settings = site.settings.model_copy(update={"model": model})
        site.run()
        assert_embedded_at_once(site, width)
        assert len(rehearsal.jobs) == (life + 1) * SHARDS


def test_four_lives_of_a_pool(rehearse: Rehearse, tmp_path: Path) -> None:
    """Two shards share each life's one job: with a record rejected, neither has enough for one of its own."""
    rehearsal = rehearse(calls={"lost_responses": 0.5}, quotas={"min_records": PER_SHARD})
    site = make_site(rehearsal, tmp_path, SHARDS, executor={"remainder": "pool"}, max_failed_fraction=1.0)
    records = some_records(SHARDS * PER_SHARD)
    records[0]["text"] = records[PER_SHARD]["text"] = ""
    write_records(tmp_path / "in.jsonl", records)
    for life in range(LIVES):
        site = next_life(site, life) if life else site
        site.run()
        assert {row.attempt for row in site.rows()} == {1}
        assert len(rehearsal.jobs) == life + 1
        assert set(site.states()) == {State.COLLECTED}
        rows = site.publish(site.open())
        assert_every_record_once(rows, [record for record in records if record["text"]])


def test_four_lives_at_sagemaker(monkeypatch: pytest.MonkeyPatch, rehearse: Rehearse, tmp_path: Path) -> None:
    """In the second one the model of that name is another one, which nothing but its answers tells."""
    monkeypatch.setattr(uploading, "ANSWER_SECONDS", 0.01)
    rehearsal = rehearse(calls={"lost_responses": 0.5})
    site = make_transform_site(rehearsal, tmp_path, SHARDS)
    for life in range(LIVES):
        site = next_life(site, life) if life else site
        rehearsal.change(transform={"models": {"my-model": "narrow"} if life == 1 else {}})
        site.run()
        assert_embedded_at_once(site, DIMENSIONS // 2 if life == 1 else DIMENSIONS)
        assert len(rehearsal.jobs) == (life + 1) * SHARDS


def test_four_lives_at_aws_batch(rehearse: Rehearse, tmp_path: Path) -> None:
    site: Any = make_worker_site(rehearse(calls={"lost_responses": 0.5}), tmp_path, SHARDS)
    for life in range(LIVES):
        site = next_life(site, life) if life else site
        site.run()
        assert {row.attempt for row in site.rows()} == {1}
        assert set(site.runs().values()) == {1}
        assert_all_published(site, some_records(SHARDS * PER_SHARD))


@pytest.mark.parametrize("make", MAKERS)
def test_a_root_restored_from_a_copy(rehearse: Rehearse, tmp_path: Path, make: Make) -> None:
    """Root, ledger and fences are those of before, and so is the root's id: the jobs that are done are not its own."""
    site = make(rehearse(), tmp_path, SHARDS)
    site.plan()
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    for ledger in ("one", "two"):
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "copy", tmp_path / "out")
        site.ledger_name = ledger
        site = site.opened_again()
        site.run()
        assert_embedded_at_once(site)
    assert len(site.rehearsal.jobs) == 2 * SHARDS


@pytest.mark.parametrize("ledger_is_lost", [False, True])
@pytest.mark.parametrize("make", MAKERS)
def test_jobs_named_as_before_ids_were_in_names_are_known(
    rehearse: Rehearse, tmp_path: Path, make: Make, ledger_is_lost: bool
) -> None:
    site = make(rehearse(), tmp_path, SHARDS)
    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr(Named, "name_prefixes", property(lambda self: [self._prefix(self.root_digits)]))
        site.first_round()
    site = site.without_ledger() if ledger_is_lost else site
    site.run()
    assert_embedded_at_once(site)
    assert len(site.rehearsal.jobs) == SHARDS


@pytest.mark.parametrize("make", MAKERS)
def test_calls_without_an_answer_from_before_ids_were_in_names_are_resolved(
    monkeypatch: pytest.MonkeyPatch, rehearse: Rehearse, tmp_path: Path, make: Make
) -> None:
    """An earlier release was ended between the call and its answer."""
    monkeypatch.setattr(uploading, "ANSWER_SECONDS", 0.0)
    rehearsal = rehearse(calls={"lost_responses": 1.0})
    site = make(rehearsal, tmp_path, SHARDS)
    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr(Named, "name_prefixes", property(lambda self: [self._prefix(self.root_digits)]))
        site.upload()
    assert State.SUBMITTING in site.states()
    rehearsal.change(calls={"lost_responses": 0.0})
    site = site.opened_again()
    site.clock.ahead += 60
    site.run()
    assert_embedded_at_once(site)
    assert len(rehearsal.jobs) == SHARDS


def queued_jobs(site: Site) -> list[JobDescription]:
    """What a site's jobs are, that wait."""
    jobs = [site.ledger.job("texts", row.key, row.job) for row in site.rows()]
    return [describe(site.open(), job) for job in jobs if job is not None]


def names_to_be(site: Site) -> list[str]:
    """The names that these jobs are going to have."""
    executor: Any = site.open().executor
    return [executor.submission_name([job.key])[1] for job in queued_jobs(site)]


def ask_bedrock(rehearsal: Rehearsal, name: str, requests: str, what: str) -> None:
    here = requests.rstrip("/").rsplit("/", 1)[0]
    source, place = (f"{here}/others/" if each == what else told
                     for each, told in (("requests", requests), ("results", f"{here}/results/")))  # fmt: skip
    rehearsal.client("bedrock").create_model_invocation_job(
        jobName=name,
        roleArn=ROLE,
        modelId="amazon.titan-embed-image-v1" if what == "model" else TITAN,
        inputDataConfig={"s3InputDataConfig": {"s3Uri": source}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": place}},
    )


def ask_sagemaker(rehearsal: Rehearsal, name: str, requests: str, what: str) -> None:
    source = requests.replace("/requests-", "/others-") if what == "requests" else requests
    rehearsal.client("sagemaker").create_transform_job(
        TransformJobName=name,
        ModelName="my-model-narrow" if what == "model" else "my-model",
        Environment={"POOLING": "max"} if what == "environment" else {},
        TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}}},
        TransformOutput={"S3OutputPath": requests.rstrip("/").replace("/requests-", "/results-")},
        TransformResources={"InstanceType": INSTANCE, "InstanceCount": 1},
    )


OTHERS = [
    (make_site, ask_bedrock, "requests", True),
    (make_site, ask_bedrock, "results", False),
    (make_site, ask_bedrock, "model", False),
    (make_transform_site, ask_sagemaker, "requests", False),
    (make_transform_site, ask_sagemaker, "model", True),
    (make_transform_site, ask_sagemaker, "environment", False),
]


@pytest.mark.parametrize(("make", "ask", "what", "ledger_is_lost"), OTHERS)
def test_a_job_of_the_name_that_was_asked_for_something_else(
    rehearse: Rehearse, tmp_path: Path, make: Make, ask: Callable[..., None], what: str, ledger_is_lost: bool
) -> None:
    """It is left alone, and another name is taken, which a ledger that knows nothing finds out again."""
    rehearsal = rehearse(calls={"throttled": 1})
    site = make(rehearsal, tmp_path, SHARDS)
    site.upload()
    rehearsal.change(calls={"throttled": 0}, output={"absent": 1})
    names = names_to_be(site)
    for name, job in zip(names, queued_jobs(site), strict=True):
        ask(rehearsal, name, f"{job.staging}/{job.folder}/", what)
    wait_until(lambda: not any(job.active for job in rehearsal.jobs), rehearsal.jobs)
    rehearsal.change(output={"absent": 0})
    site.clock.ahead += 600
    take_turn([site.open()])
    wait_until(lambda: not any(job.active for job in rehearsal.jobs), rehearsal.jobs)
    site = site.without_ledger() if ledger_is_lost else site
    site.run()
    assert_embedded_at_once(site)
    assert [job.name for job in rehearsal.jobs[:SHARDS]] == names
    assert len(rehearsal.jobs) == 2 * SHARDS


def test_a_job_of_the_name_at_aws_batch_is_neither_adopted_nor_ended(
    rehearse: Rehearse, tmp_path: Path
) -> None:
    rehearsal = rehearse(calls={"throttled": 1})
    site = make_worker_site(rehearsal, tmp_path, 1)
    site.upload()
    rehearsal.change(calls={"throttled": 0})
    [name] = names_to_be(site)
    batch = rehearsal.client("batch")
    others = {
        "jobName": name,
        "jobQueue": "embeddings",
        "jobDefinition": batch.register_job_definition(
            jobDefinitionName="others", type="container",
            containerProperties={"image": "others:1", "resourceRequirements": [
                {"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}]},
        )["jobDefinitionArn"],
        "containerOverrides": {"command": ["python", "-c", "import signal; signal.pause()"]},
    }  # fmt: skip
    theirs = batch.submit_job(**others)["jobId"]
    site.clock.ahead += 600
    site.run()
    assert status_of(batch, theirs) not in ("SUCCEEDED", "FAILED")
    batch.terminate_job(jobId=theirs, reason="the test ends")
    wait_until(lambda: status_of(batch, theirs) == "FAILED", "it does not end")
    assert {row.attempt for row in site.rows()} == {1}
    assert_all_published(site, some_records(PER_SHARD))


def status_of(batch: Any, job_id: str) -> str:
    [job] = batch.describe_jobs(jobs=[job_id])["jobs"]
    return str(job["status"])
