"""The flags that describe an ad hoc pipeline, and the settings they make.

Each flag stands for one field of `defs.yaml`; checks are made there.
"""

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from batch_assets.control.ownership import adhoc_name
from batch_assets.errors import ConfigurationError
from batch_assets.settings import PipelineSettings, parse_pipeline
from batch_assets.storage import is_local, normalize_uri

GROUP = "Ad hoc pipeline (instead of PIPELINE)"
DEFAULT_BATCH_RECORD_TOKENS = 256


def _flag(kind: Any, help: str, *names: str) -> Any:
    return Annotated[kind | None, typer.Option(*names, help=help, rich_help_panel=GROUP)]


# Numbers come as text: the settings check them, and name the field, the value and what would be right.
FLAGS: dict[str, Any] = {
    "input": _flag(str, "File or folder of records.", "--input", "--input-dir"),
    "output": _flag(str, "Output root: a folder of this pipeline alone.", "--output", "--output-dir"),
    "model": _flag(str, "Model id or local directory.", "--model", "--model-directory"),
    "revision": _flag(str, "The hub's revision."),
    "format": _flag(str, "jsonl, csv or parquet; by default told by the extension."),
    "text_column": _flag(str, "Column with the text; by default `text`."),
    "id_column": _flag(str, "Column with the record's id."),
    "columns": _flag(str, "Columns passed through, joined by commas; by default all."),
    "max_samples": _flag(str, "At most so many records."),
    "batch_size": _flag(str, "About so many full-length records in a batch."),
    "max_tokens": _flag(str, "Truncate texts to so many tokens."),
    "dimensions": _flag(str, "Keep the first so many dimensions."),
    "dtype": _flag(str, "auto, float32, bfloat16 or float16."),
    "prompt": _flag(str, "Text put before every record."),
    "normalize": _flag(bool, "Scale vectors to length 1.", "--normalize/--no-normalize"),
    "executor": _flag(str, "What computes: gpu, this machine."),
    "num_workers": _flag(str, "Workers of the executor."),
    "shard_records": _flag(str, "Records in a shard, at most."),
    "shard_bytes": _flag(str, "Source bytes in a shard, such as 200MB."),
    "max_record_bytes": _flag(str, "A longer record is rejected."),
    "trust_remote_code": _flag(bool, "Allow the model's own Python code to run.", "--trust-remote-code"),
    "allow_private_addresses": _flag(
        bool, "Let records' URLs point into private networks; texts have none.", "--allow-private-addresses"
    ),
    "aws_region": _flag(str, "AWS region."),
    "save": _flag(str, "Also write this pipeline's defs.yaml, as NAME.", "--save"),
}

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
        for name, annotation in FLAGS.items()
    ]

    @functools.wraps(verb)
    def wrapped(**given: Any) -> None:
        verb(**{key: value for key, value in given.items() if key not in FLAGS},
             flags={name: given[name] for name in FLAGS if given[name] is not None})  # fmt: skip

    parameters = [*(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in kept), *added]
    wrapped.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


def adhoc_settings(flags: dict[str, Any]) -> PipelineSettings:
    """Settings from the flags given. Raises ConfigurationError."""
    missing = [f"--{name}" for name in ("input", "output") if not flags.get(name)]
    if missing:
        raise ConfigurationError(
            f"{' and '.join(missing)} missing: name a PIPELINE, or give --input and --output"
        )
    if flags.get("aws_region"):
        os.environ["AWS_REGION"] = os.environ["AWS_DEFAULT_REGION"] = flags["aws_region"]
    if flags.get("num_workers") not in (None, "1"):
        raise ConfigurationError(
            f"--num-workers {flags['num_workers']}: executor gpu runs one worker, which uses all cores; "
            "leave the flag out"
        )
    output = normalize_uri(flags["output"])
    columns = flags.get("columns")
    values = {
        "source": {
            "uri": normalize_uri(flags["input"]),
            "format": flags.get("format"),
            "text_column": flags.get("text_column"),
            "id_column": flags.get("id_column"),
            "columns": [name.strip() for name in columns.split(",")] if columns else None,
            "limit": flags.get("max_samples"),
        },
        "model": {
            "id": _model_id(flags.get("model")),
            "revision": flags.get("revision"),
            "prompt": flags.get("prompt"),
            "dimensions": flags.get("dimensions"),
            "dtype": flags.get("dtype"),
            "max_tokens": flags.get("max_tokens"),
            "normalize": flags.get("normalize"),
            "trust_remote_code": flags.get("trust_remote_code") or None,
        },
        "executor": {
            "type": flags.get("executor") or "gpu",
            "batch_tokens": _batch_tokens(flags),
        },
        "shards": {
            "records": flags.get("shard_records"),
            "bytes": flags.get("shard_bytes"),
            "max_record_bytes": flags.get("max_record_bytes"),
        },
        "output": {"root": output},
    }
    given = {
        part: {key: value for key, value in fields.items() if value is not None}
        for part, fields in values.items()
    }
    return parse_pipeline(given, adhoc_name(output), "the command line")


def _batch_tokens(flags: dict[str, Any]) -> int | None:
    """Tokens of --batch-size records that are as long as the model takes them."""
    if (records := flags.get("batch_size")) is None:
        return None
    tokens = flags.get("max_tokens") or str(DEFAULT_BATCH_RECORD_TOKENS)
    if not (records.isdigit() and int(records) and tokens.isdigit()):
        raise ConfigurationError(f"--batch-size {records!r}: should be a positive number of records")
    return int(records) * int(tokens)


def _model_id(given: str | None) -> str | None:
    """A model directory as an absolute path; a hub id as it is."""
    return os.path.abspath(given) if given and is_local(given) and Path(given).is_dir() else given
