"""From a `defs.yaml` to settings: rendering `{{ env.X }}`, resolving relative paths, checking.

The one way from YAML to `PipelineSettings`, for the component in Dagster and for the command. What a
whole folder of them declares, broken ones included, is in `declared.py`.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster import ResolutionContext

from batch_assets.components.documents import read_documents
from batch_assets.components.project_folder import project_folder
from batch_assets.components.templates import REASON_CHARACTERS, render
from batch_assets.errors import ConfigurationError
from batch_assets.home import expand_user
from batch_assets.plain_text import plain_text, quoted
from batch_assets.settings.pipeline import PipelineSettings, parse_pipeline, with_windows
from batch_assets.settings.source import SHARDS_SCHEME
from batch_assets.sources.shards import RECORD_ID
from batch_assets.storage import normalize_uri

PACKAGE = "batch_assets."
COMPONENT_TYPE = PACKAGE + "components.EmbeddingPipeline"
QUEUE_TYPE = PACKAGE + "components.RequestQueue"


def parse_attributes(
    attributes: object,
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
    return _with_shards(settings, file, defs or folder_of_pipelines(file))


def _parse(attributes: object, file: Path, context: ResolutionContext | None = None) -> PipelineSettings:
    """Settings whose source may still be the bare name of another pipeline. Raises ConfigurationError alone."""
    try:
        return _checked(attributes, file, context)
    except ConfigurationError:
        raise
    except Exception as error:  # a value may be what nobody thought of, and concerns no other pipeline
        reason = plain_text(f"{type(error).__name__}: {error}")[:REASON_CHARACTERS]
        raise ConfigurationError(f"{file}: cannot be loaded: {reason}") from error


def _checked(attributes: object, file: Path, context: ResolutionContext | None) -> PipelineSettings:
    if not isinstance(attributes, Mapping):
        raise ConfigurationError(f"{file}: attributes: {quoted(attributes)}: should be the pipeline's fields")
    rendered = {
        field: render(value, context or ResolutionContext.default(), f"{file}: {field}")
        for field, value in attributes.items()
    }
    settings = parse_pipeline(rendered, folder_name(file), str(file))
    base = project_folder(file)
    source = settings.source
    if source.uri is not None and source.pipeline is not None:
        raise ConfigurationError(f"{file}: source: name exactly one of uri, pipeline and requests")
    if source.uri is not None and source.requests is not None:
        raise ConfigurationError(f"{file}: source: name exactly one of uri, pipeline and requests")
    if source.uri is not None:
        source = source.model_copy(update={"uri": _absolute(source.uri, base, f"{file}: source.uri")})
    model = settings.model
    if os.path.isdir(base / os.path.expanduser(model.id)):  # false also for what may not be looked at
        model = model.model_copy(update={"id": _absolute(model.id, base, f"{file}: model.id")})
    root = _absolute(settings.output.root, base, f"{file}: output.root")
    output = settings.output.model_copy(update={"root": root})
    return with_windows(settings.model_copy(update={"source": source, "model": model, "output": output}))


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
        try:
            upstream, place = _find_upstream(upstream, place, defs)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where} cannot be loaded: {error}") from None
    found = {
        "uri": SHARDS_SCHEME + normalize_uri(other.output.root),
        "id_column": settings.source.id_column or RECORD_ID,
    }
    return settings.model_copy(update={"source": settings.source.model_copy(update=found)})


def _find_upstream(settings: PipelineSettings, file: Path, defs: Path) -> tuple[PipelineSettings, Path]:
    """The pipeline that the source of `settings`, which `file` declares, names, and its own file.

    It lies under the defs folder; its source is not resolved. Others there may be broken.
    """
    name = settings.source.pipeline
    where = f"{file}: source.pipeline: {name!r}"
    known: list[str] = []
    broken: list[str] = []
    guessed: list[str] = []
    # The folder of that name first: usually it is the only one to be read.
    for other in sorted(declaring_files(defs), key=lambda other: (other.parent.name != name, other)):
        try:
            found = declarations(other)
        except ConfigurationError as error:
            broken.append(str(other))
            guessed += [str(error)] if folder_name(other) == name else []
            continue
        for attributes in found:
            called, certain = written_name(attributes, other)
            known += [called] if certain else []
            if called != name:
                continue
            try:
                return _parse(attributes, other), other
            except ConfigurationError as error:
                if certain:
                    raise ConfigurationError(f"{where} cannot be loaded: {error}") from None
                guessed.append(str(error))
    if guessed:
        raise ConfigurationError(f"{where} cannot be loaded: {'; '.join(guessed)}")
    others = ", ".join(sorted(set(known) - {settings.name})) or "none"
    unread = f"; cannot be read: {', '.join(broken)}" if broken else ""
    raise ConfigurationError(f"{where}: there is no such pipeline in {defs} (known: {others}{unread})")


def folder_of_pipelines(file: Path) -> Path:
    """The nearest folder above `file` in which pipelines' folders lie."""
    above = file.parent.parents if file.name == "defs.yaml" else (file.parent, *file.parent.parents)
    return next((folder for folder in above if any(folder.glob("*/defs.yaml"))), file.parent)


def declaring_files(defs: Path) -> list[Path]:
    """Each `defs.yaml` under a folder, in order; also one that is a link to nowhere, which `rglob` passes over."""
    return sorted(
        Path(parent) / "defs.yaml"
        for parent, folders, files in os.walk(defs)
        if "defs.yaml" in (*folders, *files)
    )


def folder_name(file: Path) -> str:
    """The folder's name, or that of a file which has one of its own; made of what a pipeline's name may hold."""
    return default_name(file.parent.name if file.name == "defs.yaml" else file.stem)


def written_name(attributes: object, file: Path) -> tuple[str, bool]:
    """What a pipeline is called by its attributes, or else as its folder; and whether that is certain, or a guess."""
    if not isinstance(attributes, Mapping):
        return folder_name(file), False
    try:
        written = render(attributes.get("name"), ResolutionContext.default(), f"{file}: name")
    except ConfigurationError:
        return folder_name(file), False
    if written in (None, ""):
        return folder_name(file), True
    return (written, True) if isinstance(written, str) else (folder_name(file), False)


def default_name(written: str) -> str:
    """The pipeline's name that comes of a folder's or file's; it may still be none that a pipeline can have."""
    return re.sub(r"[-\s]", "_", written).lower()


def load_file(file: Path, defs: Path | None = None) -> list[PipelineSettings]:
    """Every pipeline that one YAML file declares; `defs` as above. Raises ConfigurationError."""
    return [parse_attributes(attributes, file, defs=defs) for attributes in declarations(file)]


def declarations(file: Path) -> list[Any]:
    """The attributes of each pipeline that a YAML file declares, whatever they are. Raises ConfigurationError."""
    # An empty document, as behind a last `---`, is nothing; a file of none but these is no declaration.
    documents = [document for document in read_documents(file) if document is not None]
    kinds = [document.get("type") if isinstance(document, Mapping) else None for document in documents]
    for kind in kinds or [None]:
        # Of another component its own package knows; what is none at all nobody would ever miss.
        if not isinstance(kind, str) or (
            kind.startswith(PACKAGE) and kind not in (COMPONENT_TYPE, QUEUE_TYPE)
        ):
            raise ConfigurationError(f"{file}: type: {quoted(kind)}: for a pipeline write {COMPONENT_TYPE}")
    return [
        document.get("attributes")
        for document, kind in zip(documents, kinds, strict=True)
        if kind == COMPONENT_TYPE
    ]


def _absolute(uri: str, base: Path, where: str) -> str:
    try:
        if "://" not in uri:
            uri = os.path.normpath(base / expand_user(uri)) + ("/" if uri.endswith("/") else "")
        normalize_uri(uri)  # also of `base`: the folder's own name may be no UTF-8
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    return uri
