"""A rehearsal's deployment: a sample of the records, buckets and queues of localhost, a home of its own.

The verb is in `rehearse.py`; the AWS that it runs against, in `rehearsal/`.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
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
_ENTRIES = ("home", "defs", "output", "scratch", "sample.parquet", "dagster.log")
"""All that a rehearsal writes into its folder, beside its lock."""


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


@contextlib.contextmanager
def make_folder(settings: PipelineSettings) -> Iterator[Rehearsal]:
    """A folder for a rehearsal, held for as long as the block runs; what an earlier one left there is removed.

    Raises ConfigurationError where the folder is somebody else's, or a rehearsal is going on in it.
    """
    found = Rehearsal(dagster_home() / "rehearsals" / settings.name, settings.name)
    with _held(found):
        for name in _ENTRIES:
            _remove(found.folder / name)
        for each in (found.home, found.defs / settings.name):
            each.mkdir(parents=True)
        project = project_root(Path.cwd())
        if project is not None and (project / "dagster.yaml").is_file():
            shutil.copy(project / "dagster.yaml", found.home / "dagster.yaml")
        yield found


@contextlib.contextmanager
def _held(rehearsal: Rehearsal) -> Iterator[None]:
    """Hold the lock in the folder, by which a rehearsal knows that the folder is a rehearsal's."""
    folder, lock = rehearsal.folder, rehearsal.folder / "rehearsal.lock"
    if folder.is_symlink() or (folder.exists() and any(folder.iterdir()) and not lock.is_file()):
        raise ConfigurationError(
            f"{folder}: holds no {lock.name}, so no rehearsal has made it; move it away, and rehearse again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"{folder}: another rehearsal of {rehearsal.name} is going on there; wait until it has ended"
            ) from None
        yield


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: what an earlier rehearsal left cannot be removed ({error.strerror}); remove it yourself"
        ) from error


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
