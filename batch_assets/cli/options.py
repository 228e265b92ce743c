"""The flags that describe an ad hoc pipeline, and how a verb gets them.

What settings they make is in `adhoc.py`.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from batch_assets.errors import ConfigurationError

GROUP = "Ad hoc pipeline (instead of PIPELINE)"


def _flag(kind: Any, help: str, *names: str) -> Any:
    return Annotated[kind | None, typer.Option(*names, help=help, rich_help_panel=GROUP)]


TRUST_HELP = "Allow the model's own Python code to run."
PRIVATE_HELP = "Fetch images also from URLs that point into private networks."
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help=TRUST_HELP)]
AllowPrivateAddresses = Annotated[bool, typer.Option("--allow-private-addresses", help=PRIVATE_HELP)]
_REFUSED = Annotated[str | None, typer.Option(hidden=True)]
# Numbers come as text: the settings check them, and name the field, the value and what would be right.
FLAGS: dict[str, Any] = {
    "input": _flag(str, "File or folder of records."),
    "output": _flag(str, "Output root: a folder of this pipeline alone."),
    "model": _flag(str, "Model id or local directory."),
    "revision": _flag(str, "The hub's revision."),
    "format": _flag(
        str,
        "jsonl, csv, parquet, img2dataset, webdataset, imagefolder, delta or iceberg; by default told by the files.",
    ),
    "text_column": _flag(str, "Column with the text; by default `text`, beside an image `caption`."),
    "image_column": _flag(str, "Column with images, or where each is; of webdataset an extension."),
    "id_column": _flag(str, "Column with the record's id."),
    "columns": _flag(str, "Columns passed through, joined by commas; by default all."),
    "max_samples": _flag(str, "At most so many records."),
    "batch_size": _flag(str, "Records in one batch, at most; by default as many as fit."),
    "max_tokens": _flag(str, "Truncate texts to so many tokens."),
    "dimensions": _flag(str, "Keep the first so many dimensions."),
    "dtype": _flag(str, "auto, float32, bfloat16 or float16."),
    "prompt": _flag(str, "Text put before every record."),
    "normalize": _flag(bool, "Scale vectors to length 1.", "--normalize/--no-normalize"),
    "executor": _flag(str, "What computes: gpu, this machine; or ray."),
    "num_workers": _flag(str, "Workers of executor ray, which several GPUs of this machine imply."),
    "shard_records": _flag(str, "Records in a shard, at most."),
    "shard_bytes": _flag(str, "Source bytes in a shard, such as 200MB."),
    "max_record_bytes": _flag(str, "A longer record is rejected."),
    "trust_remote_code": _flag(bool, TRUST_HELP, "--trust-remote-code"),
    "allow_private_addresses": _flag(bool, PRIVATE_HELP, "--allow-private-addresses"),
    "aws_region": _flag(str, "AWS region."),
    "save": _flag(str, "Also write this pipeline's defs.yaml, as NAME.", "--save"),
    "input_dir": _flag(
        str, "As --input, with a format of images if its files are of one, and their `key` as id."
    ),
    "output_dir": _flag(str, "As --output, with embeddings.parquet and metadata.json at its top."),
    "model_directory": _flag(str, "As --model."),
}
# What another tool takes and this one does not: named, so that whoever comes from there learns what to do.
REFUSED = ("env", "config")

MaxFailed = Annotated[
    float, typer.Option(help="Exit with 3 above this share of rejected and failed records (`run`).")
]
Defs = Annotated[str | None, typer.Option(help="Folder of pipelines, instead of $BATCH_ASSETS_DEFS.")]
File = Annotated[str | None, typer.Option("-f", "--file", help="A YAML file with one pipeline.")]
OptionalTarget = Annotated[str | None, typer.Argument(metavar="PIPELINE", help="A pipeline's name.")]
Target = Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline's name, or its output URI.")]


def check_max_failed(share: float) -> None:
    """Refuse what is no fraction. Raises ConfigurationError."""
    if not 0 <= share <= 1:
        raise ConfigurationError(f"--max-failed {share}: should be a fraction between 0 and 1")


def with_adhoc_flags(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb every flag of an ad hoc pipeline; it receives them as its `flags`, a dictionary."""
    own = inspect.signature(verb, eval_str=True)
    kept = [parameter for parameter in own.parameters.values() if parameter.name != "flags"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in (FLAGS | dict.fromkeys(REFUSED, _REFUSED)).items()
    ]

    @functools.wraps(verb)
    def wrapped(**given: Any) -> None:
        for name in REFUSED:
            _refuse(name, given.pop(name))
        verb(**{key: value for key, value in given.items() if key not in FLAGS},
             flags={name: given[name] for name in FLAGS if given[name] is not None})  # fmt: skip

    parameters = [*(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in kept), *added]
    wrapped.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


def _refuse(name: str, value: str | None) -> None:
    if value is not None:
        raise ConfigurationError(
            f"--{name} {value}: a pipeline's settings stand in one YAML file of its own, where `{{{{ env.NAME }}}}` "
            "takes what differs from place to place: `batch-assets run -f FILE.yaml` runs it, `--save NAME` writes it "
            "from flags, docs/configuration.md has its fields"
        )
