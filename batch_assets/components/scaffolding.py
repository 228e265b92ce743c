"""What `dg scaffold defs batch_assets.components.EmbeddingPipeline NAME` writes: a pipeline to fill in."""

import json

import dagster as dg
import pydantic
import yaml
from pydantic import Field

from batch_assets.components.attributes import default_name
from batch_assets.errors import ConfigurationError
from batch_assets.settings.pipeline import PIPELINE_NAME

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TEMPLATE = """\
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
        if request.scaffold_format != "yaml":
            raise ConfigurationError(
                f"--format {request.scaffold_format}: a pipeline is declared in YAML; leave --format out"
            )
        given, file = request.params, request.target_path
        name = file.parent.name if request.append else file.name
        # Before anything is written: the pipeline would be refused each time that the project is loaded.
        if not PIPELINE_NAME.fullmatch(default_name(name)):
            raise ConfigurationError(
                f"{name!r}: cannot be a pipeline's name: use 1 to 24 of a-z, 0-9 and _, beginning with a letter "
                f"(A-Z are taken as a-z, - as _); name it otherwise, and remove {file} where dg has left it empty"
            )
        if not request.append:
            file.mkdir(parents=True, exist_ok=True)
            file /= "defs.yaml"
        text = TEMPLATE.format(
            type=request.type_name,
            source=_scalar(given.source or f"data/{name}/"),
            id=f"id_column: {_scalar(given.id_column)}, " if given.id_column else "",
            text=_scalar(given.text_column),
            model=_scalar(given.model),
            root=_scalar(given.output or f"embeddings/{name}/"),
        )
        with file.open("a" if request.append else "w", encoding="utf-8") as stream:
            stream.write(f"---\n{text}" if request.append else text)


def _scalar(value: str) -> str:
    """Text as YAML takes it within braces: bare, unless it would be read as something else."""
    try:
        bare = yaml.safe_load(f"{{value: {value}}}") == {"value": value}
    except yaml.YAMLError:
        bare = False
    return value if bare else json.dumps(value)
