"""The settings of an ad hoc pipeline, from the flags that describe it.

Each flag stands for one field of `defs.yaml`; fields are checked there. The flags of an older tool
for images, `--input-dir`, `--output-dir` and `--model-directory`, also bring what its users rely on.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

from batch_assets.cli.console import errors
from batch_assets.control.ownership import adhoc_name_of, read_owner
from batch_assets.errors import ConfigurationError, SourceError
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets.sources.format_guess import first_of_format, guess_format
from batch_assets.sources.parquet_files import open_parquet, parquet_errors
from batch_assets.storage import is_local, normalize_uri, open_storage

OLDER = {"input": "input_dir", "output": "output_dir", "model": "model_directory"}
KEY = "key"


def adhoc_settings(flags: dict[str, Any]) -> PipelineSettings:
    """Settings from the flags given. Raises ConfigurationError."""
    flags, older = _with_one_name(flags)
    missing = [f"--{name}" for name in ("input", "output") if not flags.get(name)]
    if missing:
        raise ConfigurationError(
            f"{' and '.join(missing)} missing: name a PIPELINE, or give --input and --output"
        )
    if flags.get("aws_region"):
        os.environ["AWS_REGION"] = os.environ["AWS_DEFAULT_REGION"] = flags["aws_region"]
    source, output = normalize_uri(flags["input"]), normalize_uri(flags["output"])
    columns = flags.get("columns")
    format = flags.get("format") or _format(flags, source, output, older)
    values = {
        "source": {
            "uri": source,
            "format": format,
            "text_column": flags.get("text_column"),
            "image_column": flags.get("image_column"),
            "id_column": flags.get("id_column") or (_older_id(source, output, format) if older else None),
            "columns": [name.strip() for name in columns.split(",")] if columns else None,
            "limit": flags.get("max_samples"),
            "allow_private_addresses": flags.get("allow_private_addresses"),
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
        "executor": {**_executor(flags), "batch_records": flags.get("batch_size")},
        "shards": {
            "records": flags.get("shard_records"),
            "bytes": flags.get("shard_bytes"),
            "max_record_bytes": flags.get("max_record_bytes"),
        },
        "output": {"root": output, "single_file": older or None},
    }
    given = {
        part: {key: value for key, value in fields.items() if value is not None}
        for part, fields in values.items()
    }
    return parse_pipeline(given, adhoc_name_of(output), "the command line")


def _with_one_name(flags: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The flags with the older tool's under their present names, and whether there were any."""
    found = dict(flags)
    for name, older in OLDER.items():
        if older in found:
            if name in found:
                raise ConfigurationError(
                    f"--{name} and --{older.replace('_', '-')} say the same; give one of them"
                )
            found[name] = found.pop(older)
    return found, not flags.keys().isdisjoint(OLDER.values())


def _format(flags: dict[str, Any], source: str, output: str, older: bool) -> str | None:
    """The format where the names of files tell that they hold images; not where a column of texts is named."""
    return None if flags.get("text_column") is not None else guess_format(source, [output], tables=older)


def _older_id(source: str, output: str, format: str | None) -> str | None:
    """The column of ids by default: `key`, by which the older tool tells images, where there is one.

    A root that is there already goes on with the ids that it has.
    """
    owner = read_owner(open_storage(output))
    if owner is not None:
        return owner["configuration"].get("source", {}).get("id_column")
    if format in ("webdataset", "imagefolder"):
        return KEY
    try:
        first = first_of_format(source, format, [output]) if format == "img2dataset" else None
        if first is None:
            return None
        with parquet_errors(*first), open_parquet(*first) as file:
            return KEY if KEY in file.schema_arrow.names else None
    except (SourceError, OSError):  # told when the source is planned
        return None


def _executor(flags: dict[str, Any]) -> dict[str, Any]:
    """The executor's type and its workers: without --executor, Ray where there are GPUs for several."""
    named, workers = flags.get("executor"), flags.get("num_workers")
    if workers is not None and not (workers.isdecimal() and int(workers)):
        raise ConfigurationError(f"--num-workers {workers!r}: should be a positive number of workers")
    if named == "ray":
        return {"type": "ray", "workers": int(workers) if workers else None}
    if workers is None or workers == "1":
        return {"type": named or "gpu"}
    if named not in (None, "gpu"):
        raise ConfigurationError(
            f"--num-workers {workers}: executor {named} has no workers; leave the flag out"
        )
    devices = _cuda_devices() if named is None else 1
    if devices > 1 and importlib.util.find_spec("ray") is not None:
        if int(workers) > devices:
            _note(f"--num-workers {workers}: there are {devices} GPUs, so there are {devices} workers")
        return {"type": "ray", "workers": min(int(workers), devices)}
    if devices > 1:
        _note(
            f"--num-workers {workers}: one of {devices} GPUs is used; with the extra `ray` installed, so are all"
        )
    else:
        _note(
            f"--num-workers {workers}: executor gpu is one process, with all cores; workers are for --executor ray"
        )
    return {"type": "gpu"}


def _cuda_devices() -> int:
    """How many CUDA devices torch sees; 0 without torch."""
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _model_id(given: str | None) -> str | None:
    """A model directory as an absolute path; a hub id as it is."""
    return os.path.abspath(given) if given and is_local(given) and Path(given).is_dir() else given


def _note(text: str) -> None:
    errors.print(f"note: {text}", markup=False, soft_wrap=True)
