"""What `batch-assets rehearse` changes of a pipeline for each service, and what it prepares there."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batch_assets.cli.rehearsal_books import tell_books
from batch_assets.cli.rehearsed_services import (
    BUCKET,
    REGION,
    client,
    deferred_of,
    fetch_output,
    fitted,
    make_resources,
)
from batch_assets.cli.rehearsing import Rehearsal, write_pipeline
from batch_assets.components.attributes import load_file
from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.server import RehearsalServer
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline

SAGEMAKER = {"type": "sagemaker", "model_name": "minilm", "instance_count": 6, "kms_key": None}
AWS_BATCH = {
    "type": "aws_batch",
    "job_queue": "spot",
    "job_definition": "arn:x:job-definition/mine:7",
    "gpus": 0,
}


def settings_of(executor: dict[str, Any], **fields: Any) -> PipelineSettings:
    values: dict[str, Any] = {"source": {"uri": "s3://mine/in/"}, "output": {"root": "s3://mine/out/"}}
    return parse_pipeline({**values, "executor": executor, **fields}, "mine", "a test")


def test_the_scenario_fits_the_pipeline() -> None:
    storm = Scenario.load("stormy")
    sagemaker = settings_of(SAGEMAKER, model={"dimensions": 128})
    # One job has more instances than the storm's quota: it must find room all the same.
    found = fitted(storm, sagemaker, None).transform
    assert (found.instances, found.width) == ({"ml.g5.xlarge": 6}, 128)
    assert fitted(storm, sagemaker, 2).transform.instances == {"ml.g5.xlarge": 12}
    assert fitted(storm, settings_of(SAGEMAKER, task="generate"), None).transform.kind("minilm") == "text"
    assert fitted(storm, settings_of(AWS_BATCH), 5).batch.capacity == 5
    assert fitted(storm, settings_of(AWS_BATCH), None) == storm


@pytest.mark.parametrize(
    ("executor", "source"), [(SAGEMAKER, "sample.parquet"), (AWS_BATCH, "s3://rehearsal/sample/")]
)
def test_everything_lies_on_localhost(
    executor: dict[str, Any], source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearsal = Rehearsal(tmp_path, "mine")
    (rehearsal.defs / "mine").mkdir(parents=True)
    pl.DataFrame({"rehearsal_id": ["1"], "rehearsal_text": ["one"]}).write_parquet(
        tmp_path / "sample.parquet"
    )
    with RehearsalServer() as server:
        settings = settings_of(executor, schedule="day", merge_when={"at": "06:00"})
        deferred = deferred_of(settings)
        queue_url = make_resources(server.endpoint, deferred)
        file = write_pipeline(settings, rehearsal, 1, queue_url, server.endpoint, automation=False)
        (written,) = load_file(file)
        changed: Any = written.executor
        assert source in str(written.source.uri) and "mine/" not in written.output.root.removeprefix(
            str(tmp_path)
        )
        assert (changed.region, changed.queue_url) == (REGION, queue_url)
        assert (written.schedule, written.merge_when) == (None, "all")
        if executor is AWS_BATCH:
            assert changed.job_definition == "mine"
            batch = client("batch", server.endpoint)
            assert (
                batch.describe_job_definitions(jobDefinitions=["mine"])["jobDefinitions"][0]["revision"] == 1
            )
            client("s3", server.endpoint).put_object(Bucket=BUCKET, Key="output/merged/CURRENT", Body=b"v1")
            fetch_output(server.endpoint, rehearsal.output)
            assert (rehearsal.output / "merged" / "CURRENT").read_text() == "v1"
        else:
            assert changed.staging == f"s3://{BUCKET}/staging/"
        tell_books(server.books, deferred)
        # Moto's rules are the process's: they would pass every later test's events on.
        client("events", server.endpoint).remove_targets(Rule="jobs", Ids=["queue"])
        client("events", server.endpoint).delete_rule(Name="jobs")
    assert re.search("attempts|hours of instances", capsys.readouterr().out)
