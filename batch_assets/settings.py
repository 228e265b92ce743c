"""What one pipeline is told: the fields of its `defs.yaml`, checked, and nothing else.

Plain pydantic, so that every layer below Dagster can use it. Where a pipeline is found and
how its YAML is rendered belongs to `components/`; what a field does, to the module named in
its description.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import Field

from batch_assets.errors import ConfigurationError

# Before an output root: the shards of the pipeline that it belongs to.
SHARDS_SCHEME = "shards:"
IMAGE_FORMATS = ("img2dataset", "webdataset")
PIPELINE_NAME = re.compile(r"[a-z][a-z0-9_]{0,23}")

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


def parse_size(value: Any) -> Any:
    """Turn `200MB` (10^6) or `16MiB` (2^20) into bytes; other values pass unchanged."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", value)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError("write a size such as 200MB or 16MiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


Bytes = Annotated[int, pydantic.BeforeValidator(parse_size, json_schema_input_type=int | str)]


def _positive(tokens: int | str) -> int | str:
    if isinstance(tokens, int) and tokens < 1:
        raise ValueError("must be auto or a positive number of tokens")
    return tokens


BatchTokens = Annotated[int | Literal["auto"], pydantic.AfterValidator(_positive)]


class Settings(pydantic.BaseModel):
    """Base of all settings: unknown fields are refused, values are frozen."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class SourceSettings(Settings):
    """Where records are read from."""

    uri: str | None = Field(
        default=None,
        description="A file or a folder (read recursively): a local path, s3://, gs:// or az://.",
    )
    pipeline: str | None = Field(
        default=None,
        description="Instead of uri: another pipeline of the same defs folder. Its committed shards' embedded "
        "records are read, with their columns and, as id_column, their record_id.",
    )
    format: Literal["jsonl", "csv", "parquet", "img2dataset", "webdataset"] | None = Field(
        default=None,
        description="jsonl, csv, parquet, img2dataset or webdataset; by default told by the files' extension "
        "(.jsonl .ndjson .json, each also .gz or .zst; .csv .tsv; .parquet). The last two hold images: img2dataset's "
        "Parquet shards, and tar shards; both are to be named.",
    )
    id_column: str | None = Field(
        default=None,
        description="Column with the record's own id; by default the record is named <shard>:<ordinal>.",
    )
    text_column: str | None = Field(
        default=None,
        description="Column with the text to embed; by default `text`, beside an image its `caption`.",
    )
    image_column: str | None = Field(
        default=None,
        description="Column with the images to embed: whole files as bytes, or where each is (a path, s3://, "
        "gs://, http(s)://). By default, in img2dataset's shards, the column of bytes, else `url`.",
    )
    max_image_pixels: int = Field(
        default=100_000_000, ge=1, description="An image of more pixels is rejected before it is decoded."
    )
    allow_private_addresses: bool = Field(
        default=False, description="Fetch images also from URLs that point into private networks."
    )
    text_template: str | None = Field(
        default=None,
        description='Instead of text_column: a template over columns, such as "{title}\\n{body}".',
    )
    columns: list[str] | None = Field(
        default=None, description="Columns passed through to the output; by default all of them."
    )
    limit: int | None = Field(
        default=None, ge=1, description="Plan at most this many records, the first ones."
    )

    @pydantic.model_validator(mode="after")
    def _one_source_one_text(self) -> "SourceSettings":
        # Once resolved, a pipeline stands beside the URI of its shards.
        resolved = self.uri is not None and self.uri.startswith(SHARDS_SCHEME)
        if resolved and self.pipeline is None:
            raise ValueError(f"{self.uri} means another pipeline's shards; name that one in source.pipeline")
        if not resolved and (self.uri is None) == (self.pipeline is None):
            raise ValueError("name exactly one of uri and pipeline")
        if self.pipeline is not None and self.format not in (None, "parquet"):
            raise ValueError(f"a pipeline's shards are parquet, not {self.format}; leave format out")
        if self.text_column is not None and self.text_template is not None:
            raise ValueError("name text_column or text_template, not both")
        if self.image_column is not None and self.format in ("jsonl", "csv", "webdataset"):
            raise ValueError(f"image_column names a column of Parquet files, not of {self.format}")
        return self

    @property
    def images(self) -> bool:
        """Whether the records are images, each maybe with a caption."""
        return self.image_column is not None or self.format in IMAGE_FORMATS

    @property
    def text_columns(self) -> list[str]:
        """The columns the text is made of; of images, the caption, which not every one has."""
        if self.text_template is None:
            return [self.text_column or ("caption" if self.images else "text")]
        import string

        names = [name for _, name, _, _ in string.Formatter().parse(self.text_template) if name]
        return list(dict.fromkeys(names))


class ModelSettings(Settings):
    """What embeds a record. Every field but trust_remote_code is part of the fingerprint."""

    id: str = Field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        description="A model id of the Hugging Face hub, or a local directory.",
    )
    revision: str | None = Field(default=None, description="The hub's revision: branch, tag or commit.")
    prompt: str | None = Field(default=None, description='Text put before every record, such as "query: ".')
    dimensions: int | None = Field(
        default=None, ge=1, description="Keep only the first so many dimensions (Matryoshka models)."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Precision of the computation; auto is bfloat16 where the processor computes it "
        "(CUDA, AMX, avx512_bf16), float32 elsewhere.",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Truncate texts to so many tokens; by default the model's own limit."
    )
    normalize: bool = Field(default=True, description="Scale every vector to length 1.")
    trust_remote_code: bool = Field(
        default=False, description="Allow the model directory's own Python code to run."
    )


class GpuExecutorSettings(Settings):
    """The machine the run is on: its GPU, or its CPU where there is none."""

    in_place: ClassVar[bool] = True
    type: Literal["gpu"] = Field(default="gpu", description="What computes: gpu, this machine.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    batch_tokens: BatchTokens = Field(
        default="auto", description="Tokens in one batch (padding included); auto fits the device."
    )
    batch_records: int | None = Field(
        default=None, ge=1, description="Records in one batch, at most; by default as many as fit."
    )
    max_attempts: int = Field(
        default=3, ge=1, description="How often a shard is tried before it is exhausted."
    )

    @pydantic.field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise ValueError("use auto, cpu, cuda or cuda:N")
        return device


class RayExecutorSettings(Settings):
    """A Ray cluster, or this machine's cores and GPUs as one: workers that pull shards."""

    in_place: ClassVar[bool] = True
    type: Literal["ray"] = Field(description="What computes: ray, the workers of a Ray cluster.")
    address: str = Field(
        default="auto",
        description="auto: the cluster in RAY_ADDRESS or one that runs on this machine, else one is started here; "
        "local: always start one here; else a cluster's address, such as ray://head:10001.",
    )
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="Workers, each with the model in memory; auto: as many as the cluster has room for.",
    )
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        default="auto",
        description="GPUs of one worker; 0.5 puts two on a GPU; auto is 1 where the cluster has GPUs, else 0.",
    )
    cpus_per_worker: float = Field(
        default=1, gt=0, description="CPU cores of one worker, which its threads share."
    )
    batch_tokens: BatchTokens = Field(
        default="auto", description="Tokens in one batch (padding included); auto fits the device."
    )
    batch_records: int | None = Field(
        default=None, ge=1, description="Records in one batch, at most; by default as many as fit."
    )
    max_attempts: int = Field(
        default=3, ge=1, description="How often a shard is tried before it is exhausted."
    )


class TokenPrices(Settings):
    """What a service takes for tokens, in USD per million."""

    input: float = Field(ge=0, description="USD per million input tokens, batch.")
    output: float = Field(default=0.0, ge=0, description="USD per million output tokens, batch.")


# The service's own pattern of an s3Uri (botocore's model of CreateModelInvocationJob).
S3_URI = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/[-!_*'().a-z0-9A-Z]+)*/?")


class BedrockExecutorSettings(Settings):
    """Amazon Bedrock batch inference: jobs that a service runs, under its quotas."""

    in_place: ClassVar[bool] = False
    type: Literal["bedrock"] = Field(description="What computes: bedrock, Amazon Bedrock batch inference.")
    region: str | None = Field(default=None, description="AWS region; by default that of the environment.")
    role_arn: str = Field(description="The role that Bedrock takes to read requests and write results.")
    staging: str | None = Field(
        default=None,
        description="Where request and result files lie: s3://bucket/prefix/; by default the output root, if that "
        "is on S3.",
    )
    model_id: str = Field(description="Model id, inference profile, or their ARN.")
    queue_url: str | None = Field(
        default=None,
        description="SQS queue fed with Bedrock's state changes by EventBridge; by default only polling.",
    )
    poll_seconds: float = Field(
        default=30.0, gt=0, description="How often the service is asked for what no event has told."
    )
    timeout_hours: int = Field(default=24, ge=24, le=168, description="When the service gives a job up.")
    max_jobs: int | None = Field(
        default=None,
        ge=1,
        description="Jobs at once; by default the account's quota, as Service Quotas tells it.",
    )
    min_records: int | None = Field(
        default=None, ge=1, description="Records in a job, at least; by default the model's quota."
    )
    max_records: int | None = Field(
        default=None, ge=1, description="Records in a job, at most; by default the model's quota."
    )
    remainder: Literal["on_demand", "pool"] = Field(
        default="on_demand",
        description="Fewer records than a job must have: on_demand calls the model for each, "
        "pool waits to put those of several shards into one job.",
    )
    on_demand_rpm: int = Field(default=600, ge=1, description="Calls per minute for remainders, at most.")
    max_attempts: int = Field(
        default=3, ge=1, description="How often a record is tried before it counts as failed."
    )
    too_long: Literal["truncate", "reject"] = Field(
        default="truncate", description="What becomes of a text that is longer than the model takes."
    )
    budget_usd: float | None = Field(
        default=None, gt=0, description="The pipeline spends no more than this; by default there is no limit."
    )
    priority: int = Field(
        default=0, description="Among pipelines that share a quota, higher goes first; equal ones by age."
    )
    prices: TokenPrices | None = Field(
        default=None, description="Instead of the package's own price table, which has a date."
    )

    @pydantic.field_validator("role_arn")
    @classmethod
    def _role(cls, arn: str) -> str:
        if not re.fullmatch(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+", arn):
            raise ValueError("write arn:aws:iam::<account>:role/<name>")
        return arn

    @pydantic.field_validator("staging")
    @classmethod
    def _s3_prefix(cls, uri: str | None) -> str | None:
        if uri is not None and not S3_URI.fullmatch(uri):
            raise ValueError(
                "write s3://bucket/prefix/, with letters, digits and -!_*'(). only (Bedrock takes no others)"
            )
        return uri


EXECUTOR_SETTINGS: dict[str, type[Settings]] = {
    "gpu": GpuExecutorSettings,
    "ray": RayExecutorSettings,
    "bedrock": BedrockExecutorSettings,
}


def _executor_type(value: Any) -> Any:
    """Which executor is meant: gpu where nothing is said."""
    return value.get("type", "gpu") if isinstance(value, Mapping) else getattr(value, "type", None)


# Each executor adds its settings class here; `type` tells them apart.
ExecutorSettings = Annotated[
    Annotated[GpuExecutorSettings, pydantic.Tag("gpu")]
    | Annotated[RayExecutorSettings, pydantic.Tag("ray")]
    | Annotated[BedrockExecutorSettings, pydantic.Tag("bedrock")],
    pydantic.Discriminator(
        _executor_type,
        custom_error_type="executor_type",
        custom_error_message="type should be one of gpu, ray, bedrock",
    ),
]


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

    name: str = Field(
        default="", description="The pipeline's name; by default the folder's. [a-z][a-z0-9_]{0,23}"
    )
    task: Literal["embed", "generate"] | None = Field(
        default=None,
        description="embed: a vector for each record; generate: an answer. By default what the executor's model does.",
    )
    source: SourceSettings = Field(description="Where records are read from.")
    model: ModelSettings = Field(default_factory=ModelSettings, description="What embeds them.")
    executor: ExecutorSettings = Field(
        default_factory=GpuExecutorSettings, description="What does the computing."
    )
    shards: ShardSettings = Field(default_factory=ShardSettings, description="How the source is cut.")
    output: OutputSettings = Field(description="Where results go.")
    max_failed_fraction: float = Field(
        default=0.05, ge=0, le=1, description="A larger share of failed records blocks publishing."
    )
    merge_when: Literal["complete", "any"] = Field(
        default="complete",
        description="complete: merge only when every shard is collected; any: merge what there is, when asked.",
    )
    automation: bool = Field(
        default=False, description="Let the sensors plan new files, start shards and merge by themselves."
    )

    @property
    def model_name(self) -> str:
        """What computes a record's result, as people call it: a service names its models itself."""
        return getattr(self.executor, "model_id", self.model.id)

    @pydantic.field_validator("name")
    @classmethod
    def _legal_name(cls, name: str) -> str:
        if name and not PIPELINE_NAME.fullmatch(name):
            raise ValueError("use 1 to 24 of a-z, 0-9 and _, beginning with a letter")
        return name


def parse_pipeline(values: Mapping[str, Any], name: str, where: str) -> PipelineSettings:
    """Check `values` (a `defs.yaml`'s attributes) and name the pipeline `name` unless they do.

    Raises ConfigurationError with every wrong field's path, its value and what would be right;
    `where` (a file, or "the command line") opens the sentence.
    """
    try:
        return PipelineSettings.model_validate({"name": name, **values})
    except pydantic.ValidationError as error:
        raise ConfigurationError(f"{where}: " + describe_errors(error)) from None


def describe_errors(error: pydantic.ValidationError) -> str:
    """Put a validation error in words: `field: 'value': what would be right`, joined by `; `."""
    lines: list[str] = []
    for item in error.errors(include_url=False):
        # What follows `executor` is its type, by which pydantic tells them apart: no field of the YAML.
        location = item["loc"]
        location = location[:1] + location[2:] if location[:1] == ("executor",) else location
        field = ".".join(str(part) for part in location) or "attributes"
        if item["type"] == "extra_forbidden":
            lines.append(f"{field}: there is no such field; known: {', '.join(_siblings(item['loc']))}")
        elif item["type"] == "missing":
            lines.append(f"{field}: this field is required")
        else:
            message = item["msg"].removeprefix("Value error, ").replace("Input should be", "should be", 1)
            lines.append(f"{field}: {item['input']!r} cannot be used: {message}")
    return "; ".join(dict.fromkeys(lines))


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields that may stand beside `location`'s last part."""
    model: Any = PipelineSettings
    for part in location[:-1]:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        if field is None:
            model = EXECUTOR_SETTINGS.get(str(part), model)
            break
        model = field.annotation
    return sorted(getattr(model, "model_fields", {}))
