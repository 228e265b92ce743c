"""What `dg scaffold defs batch_assets.components.… NAME` writes: a pipeline or a queue to fill in."""

import json
from typing import Any

import dagster as dg
import pydantic
import yaml
from pydantic import Field

from batch_assets.components.attributes import default_name
from batch_assets.errors import ConfigurationError
from batch_assets.settings.pipeline import PIPELINE_NAME

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PIPELINE = """\
# A pipeline: records in, verified embeddings out. These four fields say which; all others have defaults.
type: {type}
attributes:
  # Your records: a file or folder of JSONL, CSV or Parquet. A path counts from the project's folder; s3://, gs://
  # and az:// are taken, too. id_column names the column with each record's own id; without it a record is named
  # by its place.
  source: {{uri: {source}, {id}text_column: {text}}}
  # What embeds them: a folder with a model, or its name at the Hugging Face hub.
  model: {{id: {model}}}
  # What does the computing: gpu is this machine, its CPU where there is no GPU. Others are ray, bedrock, sagemaker
  # and aws_batch; each has fields of its own.
  executor: {{type: gpu}}
  # Where results go: a folder of this pipeline alone.
  output: {{root: {root}}}
  # Let sensors plan new files, embed and merge by themselves:
  # automation: true
  # The assets of this project that make the records, such as [raw/articles]:
  # deps: []
"""
QUEUE = """\
# A queue of requests and the queue of their results, as assets that are observed every minute.
# `batch-assets dispatch --queue URL` works on it.
type: {type}
attributes:
  # local:NAME, redis://host:6379/0?queue=NAME, redis+pubsub://host:6379/0?channel=NAME or sqs://region/queue-name.
  # A password belongs into the environment: redis://:{{{{ env.REDIS_PASSWORD }}}}@host:6379/0?queue=NAME
  url: {url}
  # Where its results are, if dispatch is told --results:
  # results: local:answers
  # The assets of this project that put messages into it, such as [raw/questions]:
  # deps: []
"""


class PipelineParameters(pydantic.BaseModel):
    """What may be said when a pipeline is scaffolded; by default the file says what is to be filled in."""

    source: str | None = Field(
        default=None, description="A file or folder of records, such as data/articles/."
    )
    id_column: str | None = Field(default=None, description="Column with each record's own id.")
    text_column: str = Field(default="text", description="Column with the text to embed.")
    model: str = Field(default=MODEL, description="A folder with a model, or its name at the hub.")
    output: str | None = Field(default=None, description="A folder for the results of this pipeline alone.")


class PipelineScaffolder(dg.Scaffolder[PipelineParameters]):
    """Writes `defs.yaml`, each of its fields explained."""

    @classmethod
    def get_scaffold_params(cls) -> type[PipelineParameters]:
        return PipelineParameters

    def scaffold(self, request: dg.ScaffoldRequest[PipelineParameters]) -> None:
        given, name = request.params, _name_of(request, "a pipeline")
        text = PIPELINE.format(
            type=request.type_name,
            source=_scalar(given.source or f"data/{name}/"),
            id=f"id_column: {_scalar(given.id_column)}, " if given.id_column else "",
            text=_scalar(given.text_column),
            model=_scalar(given.model),
            root=_scalar(given.output or f"embeddings/{name}/"),
        )
        _write(request, text)


class QueueParameters(pydantic.BaseModel):
    """What may be said when a queue is scaffolded."""

    url: str | None = Field(
        default=None, description="The queue, such as redis://localhost:6379/0?queue=NAME."
    )


class QueueScaffolder(dg.Scaffolder[QueueParameters]):
    """Writes `defs.yaml`, each of its fields explained."""

    @classmethod
    def get_scaffold_params(cls) -> type[QueueParameters]:
        return QueueParameters

    def scaffold(self, request: dg.ScaffoldRequest[QueueParameters]) -> None:
        name = _name_of(request, "a queue")
        url = json.dumps(request.params.url or f"local:{name}")
        _write(request, QUEUE.format(type=request.type_name, url=url))


def _name_of(request: dg.ScaffoldRequest[Any], kind: str) -> str:
    """The name that `kind` is to have; ConfigurationError for what it can never be, before a file is made."""
    if request.scaffold_format != "yaml":
        raise ConfigurationError(
            f"--format {request.scaffold_format}: {kind} is declared in YAML; leave --format out"
        )
    file = request.target_path
    name = file.parent.name if request.append else file.name
    if not PIPELINE_NAME.fullmatch(default_name(name)):
        raise ConfigurationError(
            f"{name!r}: cannot be {kind}'s name: use 1 to 24 of a-z, 0-9 and _, beginning with a letter "
            f"(A-Z are taken as a-z, - as _); name it otherwise, and remove {file} where dg has left it empty"
        )
    return name


def _write(request: dg.ScaffoldRequest[Any], text: str) -> None:
    file = request.target_path
    if not request.append:
        file.mkdir(parents=True, exist_ok=True)
        file /= "defs.yaml"
    with file.open("a" if request.append else "w", encoding="utf-8") as stream:
        stream.write(f"---\n{text}" if request.append else text)


def _scalar(value: str) -> str:
    """Text as YAML takes it within braces: bare, unless it would be read as something else."""
    try:
        bare = yaml.safe_load(f"{{value: {value}}}") == {"value": value}
    except yaml.YAMLError:
        bare = False
    return value if bare else json.dumps(value)
