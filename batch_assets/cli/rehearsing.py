"""A rehearsal's deployment: a sample of the records, buckets and queues of localhost, a home of its own.

The verb is in `rehearse.py`; the AWS that it runs against, in `rehearsal/`.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from batch_assets.components.attributes import COMPONENT_TYPE
from batch_assets.errors import ConfigurationError
from batch_assets.home import dagster_home, project_root
from batch_assets.settings.bedrock import BedrockExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.sampling import first_records
from batch_assets.storage import open_storage

BUCKET = "rehearsal"
REGION = "us-east-1"
ID, TEXT = "rehearsal_id", "rehearsal_text"
SHARDS = 40
KEYS = {"AWS_ACCESS_KEY_ID": "rehearsal", "AWS_SECRET_ACCESS_KEY": "rehearsal"}
FORGOTTEN = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_WEB_IDENTITY_TOKEN_FILE", "BATCH_ASSETS_LEDGER_URL")


@dataclass(frozen=True)
class Rehearsal:
    """Where a rehearsal lies: its home, its pipelines, its output; nothing of it outside `folder`."""

    folder: Path
    name: str

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def defs(self) -> Path:
        return self.folder / "defs"

    @property
    def output(self) -> Path:
        return self.folder / "output"

    def environment(self, endpoint: str) -> dict[str, str]:
        """For the processes that take part: every AWS call goes to `endpoint`."""
        kept = {name: value for name, value in os.environ.items() if name not in FORGOTTEN}
        return kept | KEYS | {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "DAGSTER_HOME": str(self.home),
            "BATCH_ASSETS_DEFS": str(self.defs),
        }  # fmt: skip


def make_folder(settings: PipelineSettings) -> Rehearsal:
    """An empty folder for a rehearsal of this pipeline; what an earlier one left is removed."""
    folder = dagster_home() / "rehearsals" / settings.name
    shutil.rmtree(folder, ignore_errors=True)
    found = Rehearsal(folder, settings.name)
    for each in (found.home, found.defs / settings.name):
        each.mkdir(parents=True)
    project = project_root(Path.cwd())
    if project is not None and (project / "dagster.yaml").is_file():
        shutil.copy(project / "dagster.yaml", found.home / "dagster.yaml")
    return found


def take_sample(settings: PipelineSettings, rehearsal: Rehearsal, most: int) -> int:
    """Copy the texts and columns of the first `most` records from the real source; how many there are.

    Raises SourceError, ConfigurationError.
    """
    scratch = open_storage(str(rehearsal.folder / "scratch"))
    tables: list[pa.Table] = []
    for records in first_records(settings, scratch, most):
        ids, texts = pa.array(records.record_ids, pa.string()), pa.array(records.texts, pa.string())
        table = pa.table({ID: ids, TEXT: texts})
        for name in records.columns.schema.names:
            table = table.append_column(name, records.columns.column(name))
        tables.append(table)
    shutil.rmtree(rehearsal.folder / "scratch", ignore_errors=True)
    sample = pa.concat_tables(tables).slice(0, most) if tables else None
    if sample is None or not sample.num_rows:
        raise ConfigurationError(
            f"{settings.source.uri}: the first {most:,} records hold no valid one to rehearse with"
        )
    pq.write_table(sample, rehearsal.folder / "sample.parquet")
    return sample.num_rows


def write_pipeline(
    settings: PipelineSettings, rehearsal: Rehearsal, records: int, queue_url: str, *, automation: bool
) -> Path:
    """The pipeline's `defs.yaml` as it is rehearsed: the same model and rules, everything else on localhost."""
    executor = settings.executor
    assert isinstance(executor, BedrockExecutorSettings)
    changed = {
        "region": REGION,
        "staging": f"s3://{BUCKET}/staging/",
        "queue_url": queue_url,
        "poll_seconds": 2.0,
        "max_jobs": None,
    }
    least = executor.min_records or 100
    shards = {"records": min(settings.shards.records, max(-(-records // SHARDS), least))}
    source = {"uri": str(rehearsal.folder / "sample.parquet"), "id_column": ID, "text_column": TEXT}
    rehearsed = PipelineSettings.model_validate(
        settings.model_dump()
        | {
            "source": source,
            "executor": executor.model_dump() | changed,
            "shards": settings.shards.model_dump() | shards,
            "output": settings.output.model_dump() | {"root": str(rehearsal.output)},
            "automation": automation,
        }
    )
    content = {"type": COMPONENT_TYPE, "attributes": rehearsed.model_dump(mode="json", exclude_defaults=True)}
    file = rehearsal.defs / rehearsal.name / "defs.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return file


def make_resources(endpoint: str) -> str:
    """A bucket, a queue, and the rule that sends Bedrock's events to it; returns the queue's URL."""
    import boto3

    session = boto3.Session(
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
    )

    def client(service: str) -> Any:
        return session.client(service, endpoint_url=endpoint)

    client("s3").create_bucket(Bucket=BUCKET)
    queue_url = str(client("sqs").create_queue(QueueName="rehearsal-events")["QueueUrl"])
    arn = client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    pattern = {"source": ["aws.bedrock"], "detail-type": ["Batch Inference Job State Change"]}
    client("events").put_rule(Name="bedrock-jobs", EventPattern=json.dumps(pattern))
    client("events").put_targets(Rule="bedrock-jobs", Targets=[{"Id": "queue", "Arn": arn}])
    return queue_url
