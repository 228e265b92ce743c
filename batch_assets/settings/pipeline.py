"""One pipeline: its source, model, executor, shards and output, and errors that name the field."""

import re
import zoneinfo
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from batch_assets.errors import ConfigurationError
from batch_assets.paths import WINDOWS
from batch_assets.plain_text import quoted
from batch_assets.settings.base import Bytes, Settings
from batch_assets.settings.executors import EXECUTOR_SETTINGS, AnyExecutorSettings
from batch_assets.settings.gateway import GatewayExecutorSettings
from batch_assets.settings.in_place import GpuExecutorSettings
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.project import AssetName, ResourceKey
from batch_assets.settings.retention import RetentionSettings
from batch_assets.settings.source import JOB_ID, SourceSettings
from batch_assets.settings.timing import MergeWhen, Schedule

PIPELINE_NAME = re.compile(r"[a-z][a-z0-9_]{0,23}")


def _check_name(name: str) -> str:
    if name and not PIPELINE_NAME.fullmatch(name):
        raise ValueError("use 1 to 24 of a-z, 0-9 and _, beginning with a letter")
    return name


Name = Annotated[str, pydantic.AfterValidator(_check_name)]
"""What opens the keys of assets: a pipeline's name, or a queue's; empty where the folder's is meant."""
FOLDER = "folder"
"""The `merge_by` that means the source's folders, not a column."""


ParityMode = Literal["block", "warn", "off"]
_OrOff = pydantic.BeforeValidator(
    # What YAML makes of a plain `off`.
    lambda value: "off" if value is False else value,
    json_schema_input_type=Literal["block", "warn", "off", False],
)


class ShardSettings(Settings):
    """How the source is cut."""

    records: int = Field(default=50_000, ge=1, description="Records in a shard, at most.")
    bytes: Bytes = Field(default=200 * 10**6, ge=1, description="Source bytes in a shard, about at most.")
    max_record_bytes: Bytes = Field(
        default=16 * 2**20, ge=1, description="A longer record is rejected (default 16MiB)."
    )


class OutputSettings(Settings):
    """Where results go."""

    root: str = Field(description="Folder of this pipeline alone: a local path, s3://, gs:// or az://.")
    dtype: Literal["float32", "float16"] = Field(default="float32", description="Type of the stored vectors.")
    merge: Literal["parquet"] = Field(default="parquet", description="Format of the merged dataset.")
    single_file: bool = Field(
        default=False,
        description="Also put embeddings.parquet, all rows in one file, and metadata.json at the root, after "
        "each publish.",
    )


class PipelineSettings(Settings):
    """One dataset × one model × one executor, as one `defs.yaml` declares it."""

    name: Name = Field(
        default="", description="The pipeline's name; by default the folder's. [a-z][a-z0-9_]{0,23}"
    )
    task: Literal["embed", "generate"] | None = Field(
        default=None,
        description="embed: a vector for each record; generate: an answer. By default what the executor's model does.",
    )
    source: SourceSettings = Field(description="Where records are read from.")
    model: ModelSettings = Field(default_factory=ModelSettings, description="What embeds them.")
    executor: AnyExecutorSettings = Field(
        default_factory=GpuExecutorSettings, description="What does the computing."
    )
    shards: ShardSettings = Field(default_factory=ShardSettings, description="How the source is cut.")
    output: OutputSettings = Field(description="Where results go.")
    max_failed_fraction: float = Field(
        default=0.05, ge=0, le=1, description="A larger share of failed records blocks publishing."
    )
    merge_when: MergeWhen = Field(
        default="all",
        description="all: merge only when every shard is collected; any: merge what there is, when asked; "
        '{fraction: 0.99}: when shards with that share of the records are; {at: "06:00"} or '
        "{at: 2026-11-21T06:00:00Z}: what there is at that time. The last two are merged again when all is there.",
    )
    merge_by: str | None = Field(
        default=None,
        min_length=1,
        description="Several merged outputs in place of one, at most 1,000: folder, one for each source folder; or "
        "the name of an output column, one for each of its values. With folder, no shard is planned across folders.",
    )
    schedule: Schedule | None = Field(
        default=None,
        description="Start by itself every minute, hour, day, week, month or year, or by a cron expression: new files "
        "are planned, embedded and merged.",
    )
    timezone: str = Field(default="UTC", description="Time zone of the schedules, such as Europe/Berlin.")
    calls_per_second: float | None = Field(
        default=None,
        gt=0,
        description="Calls to third parties (URLs of images) per second, of all workers together; by default no limit.",
    )
    retention: RetentionSettings | None = Field(
        default=None, description="How long leftovers are kept; by default for ever, and there is no cleanup."
    )
    automation: bool = Field(
        default=False, description="Let the sensors plan new files, start shards and merge by themselves."
    )
    parity: Annotated[ParityMode, _OrOff] | None = Field(
        default=None,
        description="What becomes of a merged version where a sample of it is not what the model's own library makes "
        "of the same records, or cannot be compared. block: nothing is published; warn: published, exit code 3; off: "
        "nothing is compared. By default block for gpu, ray, and gateway with a reference_model; models of other "
        "executors are not here to be asked.",
    )
    deps: list[AssetName] = Field(
        default_factory=list,
        description="Keys of the assets that write the source, such as raw/articles. With automation, each time that "
        "one of them is materialized the source is planned again, changed files included.",
    )
    resources: dict[ResourceKey, Literal["project"]] = Field(
        default_factory=dict,
        description="Resources that the Dagster project defines itself, such as {batch_assets_ledger: project}; of the "
        "others there are defaults.",
    )

    @property
    def model_name(self) -> str:
        """What computes a record's result, as people call it: a service names its models itself."""
        return self.executor.own_model or self.model.id

    @property
    def reference(self) -> ModelSettings | None:
        """The model as it is to be had here, to compare with; None where it is only elsewhere, or gives answers."""
        if self.task == "generate":
            return None
        if isinstance(self.executor, GatewayExecutorSettings):
            here = self.executor.reference_model
            # A server puts no prompt of the model's own before a text.
            told = {"id": here, "prompt": self.model.prompt or ""}
            return None if here is None else self.model.model_copy(update=told)
        return self.model if self.executor.in_place else None

    @property
    def parity_mode(self) -> ParityMode:
        """`parity`, or its default."""
        return self.parity or ("off" if self.reference is None else "block")

    @pydantic.model_validator(mode="after")
    def _parity_has_a_reference(self) -> "PipelineSettings":
        if self.parity in ("block", "warn") and self.reference is None:
            why = (
                f"executor {self.executor.type} computes elsewhere, and its model is not here to compare with"
            )
            if self.task == "generate":
                why = "answers are not compared"
            elif isinstance(self.executor, GatewayExecutorSettings):
                why = "the served model is not here to compare with; name it in executor.reference_model"
            raise ValueError(f"parity: {self.parity!r} cannot be used: {why}; or leave parity out")
        return self

    @pydantic.field_validator("merge_by")
    @classmethod
    def _groups_can_be_made(cls, by: str | None, info: pydantic.ValidationInfo) -> str | None:
        output = info.data.get("output")
        if by is not None and output is not None and output.single_file:
            raise ValueError("it makes several outputs, and output.single_file one; leave one of them out")
        source = info.data.get("source")
        if by == FOLDER and source is not None and source.pipeline is not None:
            raise ValueError(
                f"the shards of pipeline {source.pipeline} lie in no folders; name a column that it passes through"
            )
        if by == "embedding":
            raise ValueError("vectors make no groups; name another column, or folder")
        return by

    @pydantic.field_validator("deps")
    @classmethod
    def _others_assets(cls, deps: list[str], info: pydantic.ValidationInfo) -> list[str]:
        name = info.data.get("name")
        for dep in deps:
            if name and dep.split("/")[0] == name:
                raise ValueError(f"{dep} is this pipeline's own; name the assets that make its source")
        return deps

    @pydantic.field_validator("timezone")
    @classmethod
    def _known_timezone(cls, name: str) -> str:
        try:
            zoneinfo.ZoneInfo(name)
        # OSError: of a folder of zones, and of too long a name
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("there is no such time zone; write one such as Europe/Berlin") from None
        return name


def parse_pipeline(values: Mapping[str, Any], name: str, where: str) -> PipelineSettings:
    """Check `values` (a `defs.yaml`'s attributes) and name the pipeline `name` unless they do.

    Raises ConfigurationError with every wrong field's path, its value and what would be right;
    `where` (a file, or "the command line") opens the sentence.
    """
    try:
        written = values.get("name")
        return PipelineSettings.model_validate({**values, "name": name if written in (None, "") else written})
    except pydantic.ValidationError as error:
        raise ConfigurationError(f"{where}: " + describe_errors(error)) from None


def with_windows(settings: PipelineSettings) -> PipelineSettings:
    """The settings with the source that requests have: the windows sealed under the output root."""
    if settings.source.requests is None:
        return settings
    found = {"uri": f"{settings.output.root.rstrip('/')}/{WINDOWS}", "id_column": JOB_ID, "format": "jsonl"}
    return settings.model_copy(update={"source": settings.source.model_copy(update=found)})


def describe_errors(error: pydantic.ValidationError, model: type[pydantic.BaseModel] | None = None) -> str:
    """Put a validation error in words: `field: 'value': what would be right`, joined by `; `.

    `model` is whose fields are named where one is unknown, a pipeline's by default.
    """
    lines: list[str] = []
    for item in error.errors(include_url=False):
        # What follows these two is a kind, by which pydantic tells them apart: no field of the YAML.
        location = item["loc"]
        if location[:1] in (("executor",), ("merge_when",)):
            location = location[:1] + location[2:]
        field = ".".join(str(part) for part in location) or "attributes"
        if item["type"] == "extra_forbidden":
            known = ", ".join(_siblings(item["loc"], model or PipelineSettings))
            lines.append(f"{field}: there is no such field{'; known: ' if known else ' here'}{known}")
        elif item["type"] == "missing":
            lines.append(f"{field}: this field is required")
        else:
            message = item["msg"].removeprefix("Value error, ").replace("Input should be", "should be", 1)
            # Of a whole section whose fields do not go together, the words name those.
            together = isinstance(item["input"], dict) and item["type"] == "value_error"
            value = "" if together else f"{quoted(item['input'])} cannot be used: "
            lines.append(f"{field}: {value}{message}")
    return "; ".join(dict.fromkeys(lines))


def _siblings(location: tuple[int | str, ...], model: Any) -> list[str]:
    """Names of the fields that may stand beside `location`'s last part."""
    for part in location[:-1]:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        if field is None:
            model = EXECUTOR_SETTINGS.get(str(part), model)
            break
        model = field.annotation
    return sorted(getattr(model, "model_fields", {}))
