"""Which pipeline a verb's argument means: a name, a YAML file, or an output root."""

from pathlib import Path
from typing import Any

from batch_assets.cli.adhoc import adhoc_settings
from batch_assets.cli.saving import check_savable
from batch_assets.components.attributes import defs_folder, load_file, load_folder
from batch_assets.control.ownership import read_owner
from batch_assets.errors import ConfigurationError
from batch_assets.ledger.ledger import Ledger
from batch_assets.settings.pipeline import PIPELINE_NAME, PipelineSettings, parse_pipeline
from batch_assets.storage import normalize_uri, open_storage


def find_pipeline(target: str, ledger: Ledger, defs: str | None) -> PipelineSettings:
    """Settings of the pipeline named `target`, or of the one that owns the output root `target`.

    Declared pipelines come first, then those the ledger remembers, then what
    `pipeline.json` under the root says. Raises ConfigurationError, naming what there is.
    """
    declared: dict[str, PipelineSettings] = {}
    if PIPELINE_NAME.fullmatch(target):
        declared = load_folder(defs_folder(defs))
        if target in declared:
            return declared[target]
        row = ledger.pipeline(target)
        if row is not None:
            return _from_root(row.root, target)
        if not Path(target).exists():
            known = ", ".join(sorted({*declared, *(row.name for row in ledger.pipelines())})) or "none"
            raise ConfigurationError(
                f"there is no pipeline {target!r} in {defs_folder(defs)} or in the ledger (known: {known}); "
                "an output root is given as a path or URI"
            )
    return _from_root(target, target)


def choose_pipeline(
    pipeline: str | None, file: str | None, defs: str | None, flags: dict[str, Any], ledger: Ledger
) -> PipelineSettings:
    """The pipeline that `run` or `plan` means: by name, by file, or by flags. Raises ConfigurationError."""
    if flags:
        if pipeline or file:
            given = ", ".join("--" + name.replace("_", "-") for name in flags)
            raise ConfigurationError(
                f"{given}: flags describe an ad hoc pipeline; {pipeline or file} has its YAML"
            )
        settings = adhoc_settings(flags)
        if "save" in flags:
            settings = settings.model_copy(update={"name": flags["save"]})
            check_savable(settings, defs_folder(defs))
        return settings
    if file and pipeline:
        raise ConfigurationError(f"{pipeline} and -f {file}: name one of them")
    if file:
        return load_one(file)
    if pipeline:
        return find_pipeline(pipeline, ledger, defs)
    known = ", ".join(sorted(load_folder(defs_folder(defs)))) or "none"
    raise ConfigurationError(f"name a PIPELINE (known: {known}), or give --input and --output")


def load_one(file: str) -> PipelineSettings:
    """The one pipeline of a YAML file. Raises ConfigurationError."""
    found = load_file(Path(file).absolute())
    if len(found) != 1:
        raise ConfigurationError(f"{file}: declares {len(found)} pipelines; -f takes a file with exactly one")
    return found[0]


def _from_root(root: str, target: str) -> PipelineSettings:
    owner = read_owner(open_storage(root))
    if owner is None:
        raise ConfigurationError(
            f"{target!r}: no pipeline has its output under {open_storage(root).uri} (there is no pipeline.json)"
        )
    settings = parse_pipeline(owner.get("configuration", {}), owner["pipeline"], f"{root}/pipeline.json")
    # Where it was asked for, not where it was made: a root may have been moved or copied.
    output = settings.output.model_copy(update={"root": normalize_uri(root)})
    return settings.model_copy(update={"output": output})
