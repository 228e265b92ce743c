"""From a `defs.yaml` to settings: rendering `{{ env.X }}`, resolving relative paths, checking.

The one way from YAML to `PipelineSettings`, for the component in Dagster and for the command.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dagster import ResolutionContext

from batch_assets.components.documents import load_documents
from batch_assets.components.project_folder import defs_of_project, project_folder
from batch_assets.components.templates import render
from batch_assets.errors import ConfigurationError
from batch_assets.plain_text import quoted
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline
from batch_assets.settings.source import SHARDS_SCHEME
from batch_assets.sources.shards import RECORD_ID
from batch_assets.storage import normalize_uri

COMPONENT_TYPE = "batch_assets.components.EmbeddingPipeline"
DEFAULT_DEFS = Path(__file__).parent.parent / "defs"


def parse_attributes(
    attributes: Mapping[str, Any],
    file: Path,
    context: ResolutionContext | None = None,
    defs: Path | None = None,
) -> PipelineSettings:
    """Settings from the `attributes` of a YAML file, named by its folder. Raises ConfigurationError.

    Relative paths count from the project's folder. A pipeline named as the source is looked for in the
    defs folder `defs`, by default the one that the file lies in.
    """
    settings = _parse(attributes, file, context)
    if settings.source.pipeline is None:
        return settings
    return _with_shards(settings, file, defs or _folder_of_pipelines(file))


def _parse(
    attributes: Mapping[str, Any], file: Path, context: ResolutionContext | None = None
) -> PipelineSettings:
    """Settings whose source may still be the bare name of another pipeline."""
    rendered = {
        field: render(value, context or ResolutionContext.default(), f"{file}: {field}")
        for field, value in attributes.items()
    }
    settings = parse_pipeline(rendered, _default_name(file), str(file))
    base = project_folder(file)
    source = settings.source
    if source.uri is not None and source.pipeline is not None:
        raise ConfigurationError(f"{file}: source: name exactly one of uri and pipeline")
    if source.uri is not None:
        source = source.model_copy(update={"uri": _absolute(source.uri, base, f"{file}: source.uri")})
    model = settings.model
    if (base / os.path.expanduser(model.id)).is_dir():
        model = model.model_copy(update={"id": _absolute(model.id, base, f"{file}: model.id")})
    root = _absolute(settings.output.root, base, f"{file}: output.root")
    output = settings.output.model_copy(update={"root": root})
    return settings.model_copy(update={"source": source, "model": model, "output": output})


def _with_shards(settings: PipelineSettings, file: Path, defs: Path) -> PipelineSettings:
    """The settings with the shards of `source.pipeline`, one for one, as their source."""
    name = settings.source.pipeline
    where = f"{file}: source.pipeline: {name!r}"
    if settings.source.limit is not None:
        raise ConfigurationError(
            f"{file}: source.limit: {settings.source.limit}: another pipeline's shards are taken one for one, all of "
            f"them; leave limit out, or set it in pipeline {name}"
        )
    if name == settings.name:
        raise ConfigurationError(f"{where} is this pipeline itself; name another, or files in source.uri")
    other, place = _find_upstream(settings, file, defs)
    chain, upstream = [settings.name, other.name], other
    while upstream.source.pipeline is not None:
        chain.append(upstream.source.pipeline)
        if chain[-1] in chain[:-1]:
            raise ConfigurationError(
                f"{where}: pipelines read each other in a circle ({' → '.join(chain)}); "
                "let one of them read files, by source.uri"
            )
        upstream, place = _find_upstream(upstream, place, defs)
    found = {
        "uri": SHARDS_SCHEME + normalize_uri(other.output.root),
        "id_column": settings.source.id_column or RECORD_ID,
    }
    return settings.model_copy(update={"source": settings.source.model_copy(update=found)})


def _find_upstream(settings: PipelineSettings, file: Path, defs: Path) -> tuple[PipelineSettings, Path]:
    """The pipeline that the source of `settings`, which `file` declares, names, and its own file.

    It lies under the defs folder; its source is not resolved.
    """
    name = settings.source.pipeline
    known: list[str] = []
    # The folder of that name first: usually it is the only one to be read.
    for other in sorted(defs.rglob("defs.yaml"), key=lambda other: (other.parent.name != name, other)):
        for attributes in _declared(other):
            declared = render(attributes.get("name"), ResolutionContext.default(), f"{other}: name")
            known.append(str(declared or _default_name(other)))
            if known[-1] == name:
                return _parse(attributes, other), other
    others = ", ".join(sorted(set(known) - {settings.name})) or "none"
    raise ConfigurationError(
        f"{file}: source.pipeline: {name!r}: there is no such pipeline in {defs} (known: {others})"
    )


def _folder_of_pipelines(file: Path) -> Path:
    """The nearest folder above `file` in which pipelines' folders lie."""
    above = file.parent.parents if file.name == "defs.yaml" else (file.parent, *file.parent.parents)
    return next((folder for folder in above if any(folder.glob("*/defs.yaml"))), file.parent)


def _default_name(file: Path) -> str:
    """The folder's name, or that of a file which has one of its own; made of what a pipeline's name may hold."""
    return default_name(file.parent.name if file.name == "defs.yaml" else file.stem)


def default_name(written: str) -> str:
    """The pipeline's name that comes of a folder's or file's; it may still be none that a pipeline can have."""
    return re.sub(r"[-\s]", "_", written).lower()


def load_file(file: Path, defs: Path | None = None) -> list[PipelineSettings]:
    """Every pipeline that one YAML file declares; `defs` as above. Raises ConfigurationError."""
    return [parse_attributes(attributes, file, defs=defs) for attributes in _declared(file)]


def load_folder(folder: Path) -> dict[str, PipelineSettings]:
    """Every pipeline declared under a defs folder, by name.

    Raises ConfigurationError, also where two have one name or one output root.
    """
    found: dict[str, PipelineSettings] = {}
    files: dict[str, Path] = {}
    roots: dict[str, str] = {}
    for file in sorted(folder.rglob("defs.yaml")):
        for settings in load_file(file, folder):
            name, root = settings.name, normalize_uri(settings.output.root)
            if name in found:
                raise ConfigurationError(
                    f"{file}: name: {name!r} is the name of the pipeline in {files[name]} already; "
                    "name one of them otherwise"
                )
            if root in roots:
                raise ConfigurationError(
                    f"{file}: output.root: {root!r} belongs to pipeline {roots[root]!r} already, "
                    f"which is in {files[roots[root]]}; give each pipeline a root of its own"
                )
            found[name], files[name], roots[root] = settings, file, name
    return found


def defs_folder(given: str | None) -> Path:
    """`given` (--defs), else `$BATCH_ASSETS_DEFS`, else that of the project here or above, else the package's own."""
    named = given or os.environ.get("BATCH_ASSETS_DEFS") or defs_of_project(Path.cwd())
    folder = Path(named or DEFAULT_DEFS).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigurationError(f"defs folder {folder} does not exist; name another by --defs")
    return folder


def _declared(file: Path) -> Iterator[Mapping[str, Any]]:
    try:
        documents = load_documents(file.read_text(encoding="utf-8"))
    except Exception as error:  # a value that is not what its tag says may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigurationError(f"{file}: cannot be read as YAML: {reason}") from None
    for document in documents:
        if not isinstance(document, Mapping) or document.get("type") != COMPONENT_TYPE:
            continue
        attributes = document.get("attributes")
        if not isinstance(attributes, Mapping):
            raise ConfigurationError(
                f"{file}: attributes: {quoted(attributes)}: should be the pipeline's fields"
            )
        yield attributes


def _absolute(uri: str, base: Path, where: str) -> str:
    if "://" not in uri:
        return os.path.normpath(base / os.path.expanduser(uri)) + ("/" if uri.endswith("/") else "")
    try:
        normalize_uri(uri)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    return uri
