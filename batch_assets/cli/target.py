"""Which pipeline a verb's argument means: a name, a YAML file, or an output root.

What a pipeline may do was said on this machine: on the command line, in a YAML file, or when this
ledger ran it. An output root says what it holds, and allows nothing.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from batch_assets import paths
from batch_assets.cli.adhoc import adhoc_settings
from batch_assets.cli.console import warn
from batch_assets.cli.saving import check_savable
from batch_assets.components.attributes import default_name, folder_of_pipelines, load_file
from batch_assets.components.declared import Declared, defs_folder, load_folder
from batch_assets.control.ownership import read_owner
from batch_assets.errors import ConfigurationError
from batch_assets.ledger.ledger import Ledger
from batch_assets.settings.permissions import Permissions, without_permissions
from batch_assets.settings.pipeline import PIPELINE_NAME, PipelineSettings, parse_pipeline, with_windows
from batch_assets.storage import normalize_uri, open_storage, same_place

NOTHING = Permissions()


def find_pipeline(
    target: str,
    ledger: Ledger,
    defs: str | None,
    allowed: Permissions = NOTHING,
    *,
    executor_acts: bool = True,
    as_it_ran: bool = False,
) -> PipelineSettings:
    """Settings of the pipeline named `target`, or of the one that owns the output root `target`.

    Declared pipelines come first, then what the ledger knows them by, then what `pipeline.json` under
    the root says. The last is data: what it allows does not count, but only what is `allowed` here.
    `executor_acts` says that the verb has the executor do something, which a root may order in place
    only; `as_it_ran`, that where the declaration is broken, the verb goes by what the ledger ran last:
    what is at work must be seen, and stopped. Raises ConfigurationError, naming what there is.
    """
    name = _name_in(target)
    if PIPELINE_NAME.fullmatch(name):
        declared = load_folder(defs_folder(defs))
        if name in declared.pipelines:
            warn_of_others(declared, name)
            return allowed.given_to(declared.pipelines[name])
        row, broken = ledger.pipeline(name), declared.why_broken(name)
        if broken is not None and (row is None or not as_it_ran):
            raise ConfigurationError(broken)
        warn_of_others(declared, name)
        if row is not None:
            if broken is not None:
                warn(f"warning: {broken}; this goes by what the ledger ran last")
            return allowed.given_to(_of_root(row.root, name, target, ledger, executor_acts))
        if not Path(target).exists():
            names = {*declared.pipelines, *(row.name for row in ledger.pipelines())}
            raise ConfigurationError(
                f"there is no pipeline {target!r} in {defs_folder(defs)} or in the ledger (known: {_listed(names)}); "
                "an output root is given as a path or URI"
            )
    return allowed.given_to(_of_root(target, None, target, ledger, executor_acts))


def warn_of_others(declared: Declared, name: str | None = None) -> None:
    """Say on stderr what is wrong with pipelines other than `name`: they are left out."""
    for one in declared.broken:
        # Where it is loaded, none of the broken ones is it, whatever they hold.
        if name is None or name in declared.pipelines or not one.may_be(name):
            warn(f"warning: left out: {one.reason}")
    for sentence in declared.shared_roots:
        warn(f"warning: {sentence}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _name_in(target: str) -> str:
    """The name that `target` is, if it is one: My-Texts, a pipeline's folder, stands for my_texts.

    A path that exists is meant as it is.
    """
    return target if Path(target).exists() else default_name(target)


def choose_pipeline(
    pipeline: str | None, file: str | None, defs: str | None, flags: dict[str, Any], ledger: Ledger
) -> PipelineSettings:
    """The pipeline that `run` or `plan` means: by name, by file, or by flags. Raises ConfigurationError.

    The flags that allow something may stand beside a name or a file; all others describe an ad hoc pipeline.
    """
    allowed = Permissions.of(flags)
    describing = flags.keys() - Permissions.__dataclass_fields__.keys()
    if flags and (describing or not (pipeline or file)):
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
        return allowed.given_to(load_one(file))
    if pipeline:
        settings = find_pipeline(pipeline, ledger, defs, allowed)
        refuse_namesake(pipeline, settings, ledger)
        return settings
    declared = load_folder(defs_folder(defs))
    warn_of_others(declared)
    raise ConfigurationError(
        f"name a PIPELINE (known: {_listed(declared.pipelines)}), or give --input and --output"
    )


def load_one(file: str) -> PipelineSettings:
    """The one pipeline of a YAML file. Raises ConfigurationError."""
    found = load_file(Path(file).absolute())
    if len(found) != 1:
        raise ConfigurationError(f"{file}: declares {len(found)} pipelines; -f takes a file with exactly one")
    [settings] = found
    if (upstream := settings.source.pipeline) is not None:
        others = load_folder(folder_of_pipelines(Path(file).absolute()))
        if (broken := others.why_broken(upstream)) is not None:  # such as two of that name
            raise ConfigurationError(f"{file}: source.pipeline: {upstream!r} cannot be loaded: {broken}")
    return settings


def refuse_namesake(target: str, settings: PipelineSettings, ledger: Ledger) -> None:
    """Raise ConfigurationError where a root calls itself by the name of a pipeline that has another root here.

    For verbs that change what the ledger knows by that name: they would change the other one. A root
    that was moved, so that nothing is left where it was, is the pipeline's own.
    """
    row, root = ledger.pipeline(settings.name), open_storage(settings.output.root).uri
    if _name_in(target) == settings.name or row is None or same_place(row.root, root):
        return
    if read_owner(open_storage(row.root)) is not None:
        raise ConfigurationError(
            f"{root}/pipeline.json calls itself {settings.name!r}, and that pipeline has its output under {row.root} "
            f"in this ledger; name the one that you mean: {settings.name}, or {root} with a ledger of its own "
            "(BATCH_ASSETS_LEDGER_URL)"
        )


def _of_root(
    root: str, name: str | None, target: str, ledger: Ledger, executor_acts: bool
) -> PipelineSettings:
    """Settings of the pipeline under `root`: as this ledger ran it, else what `pipeline.json` says, as data.

    `name` is what the ledger calls it; by default the root's own word, which the ledger must confirm.
    """
    storage = open_storage(root)
    owner = read_owner(storage)
    if owner is None:
        raise ConfigurationError(
            f"{target!r}: no pipeline has its output under {storage.uri} (there is no pipeline.json)"
        )
    own = {row.name for row in ledger.pipelines() if same_place(row.root, storage.uri)}
    called: str = name or owner["pipeline"]
    known = ledger.configuration(called) if called in own else None
    if known is not None:
        return parse_pipeline(orjson.loads(known), called, f"ledger {ledger.url_shown}: pipeline {called}")
    where = f"{storage.uri}/{paths.PIPELINE}"
    found = parse_pipeline(owner["configuration"], owner["pipeline"], where)
    if executor_acts and found.executor.acts_elsewhere:
        raise ConfigurationError(
            f"{where}: executor.type: {found.executor.type!r} acts in an account or at a server, and what is read "
            "from an output root is data, which may order nothing there; this ledger has not run the pipeline: declare "
            "it in a defs.yaml, and name that (`batch-assets run -f FILE.yaml`)"
        )
    # Where it was asked for, not where it was made: a root may have been moved or copied.
    output = found.output.model_copy(update={"root": normalize_uri(root)})
    return with_windows(without_permissions(found).model_copy(update={"output": output}))
