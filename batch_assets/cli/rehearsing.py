"""A rehearsal's deployment: a sample of the records, buckets and queues of localhost, a home of its own.

The verb is in `rehearse.py`; the AWS that it runs against, in `rehearsal/`.
"""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from batch_assets.cli.rehearsed_services import (
    BUCKET,
    KEYS,
    REGION,
    deferred_of,
    lies_on_s3,
    localized,
    put_sample,
    shards_of,
)
from batch_assets.components.attributes import COMPONENT_TYPE
from batch_assets.errors import ConfigurationError
from batch_assets.home import dagster_home, project_root
from batch_assets.settings.bedrock import BedrockExecutorSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.settings.timing import MergeAtTime
from batch_assets.sharding.sampling import first_records
from batch_assets.storage import open_storage

ID, TEXT = "rehearsal_id", "rehearsal_text"
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
    """A folder of its own for a rehearsal of this pipeline. What earlier ones left stays: nothing is deleted."""
    parent = dagster_home() / "rehearsals" / settings.name
    parent.mkdir(parents=True, exist_ok=True)
    found = Rehearsal(_new_folder(parent), settings.name)
    for each in (found.home, found.defs / settings.name):
        each.mkdir(parents=True)
    project = project_root(Path.cwd())
    if project is not None and (project / "dagster.yaml").is_file():
        shutil.copy(project / "dagster.yaml", found.home / "dagster.yaml")
    return found


def _new_folder(parent: Path) -> Path:
    """The next numbered folder; of two rehearsals at once each gets one."""
    while True:
        last = max((int(path.name) for path in parent.iterdir() if path.name.isdecimal()), default=0)
        with contextlib.suppress(FileExistsError):
            (parent / str(last + 1)).mkdir()
            return parent / str(last + 1)


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
    settings: PipelineSettings,
    rehearsal: Rehearsal,
    records: int,
    queue_url: str,
    endpoint: str,
    *,
    automation: bool,
) -> Path:
    """The pipeline's `defs.yaml` as it is rehearsed: the same model and rules, everything else on localhost."""
    executor = deferred_of(settings)
    least = (executor.min_records or 100) if isinstance(executor, BedrockExecutorSettings) else 1
    shards = {"records": min(settings.shards.records, max(-(-records // shards_of(executor)), least))}
    sample, root = rehearsal.folder / "sample.parquet", str(rehearsal.output)
    remote = lies_on_s3(executor)
    source = {
        "uri": put_sample(endpoint, sample) if remote else str(sample),
        "id_column": ID,
        "text_column": TEXT,
    }
    # Nobody waits for six o'clock at a rehearsal.
    timing: dict[str, Any] = {"schedule": None}
    if isinstance(settings.merge_when, MergeAtTime):
        timing["merge_when"] = "all"
    rehearsed = PipelineSettings.model_validate(
        settings.model_dump()
        | timing
        | {
            "source": source,
            "executor": executor.model_dump() | localized(executor, queue_url),
            "shards": settings.shards.model_dump() | shards,
            "output": settings.output.model_dump() | {"root": f"s3://{BUCKET}/output/" if remote else root},
            "automation": automation,
        }
    )
    content = {"type": COMPONENT_TYPE, "attributes": rehearsed.model_dump(mode="json", exclude_defaults=True)}
    file = rehearsal.defs / rehearsal.name / "defs.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return file
