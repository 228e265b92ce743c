"""What a defs folder declares: the pipelines that can be loaded, and those that cannot, each with its reason.

A file that cannot be read concerns its own pipeline alone. All others are loaded, and whoever loads
them says which are left out.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batch_assets.components.attributes import (
    declarations,
    declaring_files,
    folder_name,
    parse_attributes,
    written_name,
)
from batch_assets.components.documents import read_start
from batch_assets.components.project_folder import defs_of_project
from batch_assets.errors import BatchAssetsError, ConfigurationError
from batch_assets.home import expand_user
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import normalize_uri, real_uri

DEFAULT_DEFS = Path(__file__).parent.parent / "defs"


@dataclass(frozen=True)
class BrokenPipeline:
    """A pipeline that cannot be loaded, and the reason: a sentence that begins with its file.

    Where its own name cannot be told, `name` is a guess: the folder's. So it is of a file that is not even YAML
    (`unreadable`).
    """

    name: str
    file: Path
    reason: str
    guessed: bool = False
    unreadable: bool = False

    def may_be(self, name: str) -> bool:
        """Whether this may be the declaration of the pipeline `name`."""
        if self.name == name or not self.guessed:
            return self.name == name
        try:
            # Bytes: what cannot be decoded says its name all the same. In UTF-16 each other one is NUL.
            content = read_start(self.file).replace(b"\0", b"")
        except (BatchAssetsError, OSError):
            return False
        return re.search(rb"\b" + re.escape(name.encode(errors="replace")) + rb"\b", content) is not None


@dataclass(frozen=True)
class Declared:
    """What a folder declares: pipelines by name, broken ones, and a sentence for each root that two of them have."""

    pipelines: dict[str, PipelineSettings]
    broken: Sequence[BrokenPipeline] = ()
    shared_roots: Sequence[str] = ()

    @property
    def problems(self) -> list[str]:
        """A sentence for each thing that is wrong."""
        return [*(one.reason for one in self.broken), *self.shared_roots]

    def why_broken(self, name: str) -> str | None:
        """Why the pipeline `name` cannot be loaded, as far as it is declared; None where it can, or nobody does."""
        if name in self.pipelines:
            return None
        reasons = [one.reason for one in self.broken if not one.guessed and one.name == name]
        maybe = [one.reason for one in self.broken if one.guessed and one.may_be(name)]
        reasons += [f"{reason} (pipeline {name!r} may be declared there)" for reason in maybe]
        return "; ".join(reasons) or None


def load_folder(folder: Path) -> Declared:
    """Every pipeline declared under a defs folder.

    Of several with one name none is loaded: which of them is meant, nobody can tell. Of several with one
    root all are: the root is the pipeline's that comes to it first, and refuses the others.
    """
    return compare_declarations(
        (found, file) for file in declaring_files(folder) for found in _load(file, folder)
    )


def compare_declarations(found: Iterable[tuple[PipelineSettings | BrokenPipeline, Path]]) -> Declared:
    """What these pipelines of one place, each with its file, are to each other: namesakes, sources, and of one root."""
    files: dict[str, list[Path]] = {}
    broken: list[BrokenPipeline] = []
    loaded: list[tuple[PipelineSettings, Path]] = []
    for one, file in found:
        if isinstance(one, PipelineSettings):
            loaded.append((one, file))
        else:
            broken.append(one)
        # A guess takes nobody's name away.
        if isinstance(one, PipelineSettings) or not one.guessed:
            files.setdefault(one.name, []).append(file)
    unique = {settings.name: settings for settings, _ in loaded if len(files[settings.name]) == 1}
    for name, others in files.items():
        if len(others) > 1:
            broken.append(BrokenPipeline(name, others[0], _namesakes(name, others)))
    reasons = {one.name: one.reason for one in broken if not one.guessed}
    while orphans := [settings for settings in unique.values() if settings.source.pipeline in reasons]:
        for settings in orphans:
            [file] = files[settings.name]
            upstream = settings.source.pipeline or ""
            reason = f"{file}: source.pipeline: {upstream!r} cannot be loaded: {reasons[upstream]}"
            broken.append(BrokenPipeline(settings.name, file, reason))
            reasons[settings.name] = reason
            del unique[settings.name]
    shared = shared_roots((settings, file) for settings, file in loaded if settings.name in unique)
    return Declared(unique, broken, shared)


def _namesakes(name: str, files: Sequence[Path]) -> str:
    """What is wrong with the pipelines of these files, which have one name."""
    first, *others = map(str, files)
    return (
        f"{first}: name: {name!r} is also the name of the pipeline in {', '.join(others)}, so that none of them is "
        "loaded; name all but one otherwise"
    )


def validating() -> bool:
    """Whether somebody asks if all is right (`dg check defs`), for whom a broken pipeline is an error."""
    return bool(os.environ.get("DAGSTER_IS_DEFS_VALIDATION_CLI"))


def shared_roots(pipelines: Iterable[tuple[PipelineSettings, Path]]) -> list[str]:
    """A sentence for each pipeline whose root one before it has already."""
    told: list[str] = []
    first: dict[str, tuple[str, Path]] = {}
    for settings, file in pipelines:
        root = normalize_uri(settings.output.root)
        name, other = first.setdefault(real_uri(root), (settings.name, file))
        if name != settings.name:
            told.append(
                f"{file}: output.root: {root!r} is also that of pipeline {name!r} in {other}; it is whose it became "
                f"first, and {settings.name!r} or {name!r} is refused there: give each pipeline a root of its own"
            )
    return told


def defs_folder(given: str | None) -> Path:
    """`given` (--defs), else `$BATCH_ASSETS_DEFS`, else that of the project here or above, else the package's own."""
    named = given or os.environ.get("BATCH_ASSETS_DEFS") or defs_of_project(Path.cwd())
    folder = Path(expand_user(str(named or DEFAULT_DEFS))).absolute()
    if not folder.is_dir():
        raise ConfigurationError(f"defs folder {folder} does not exist; name another by --defs")
    return folder


def _load(file: Path, folder: Path) -> Iterator[PipelineSettings | BrokenPipeline]:
    """Each pipeline of one file."""
    try:
        found = declarations(file)
    except ConfigurationError as error:
        yield BrokenPipeline(folder_name(file), file, str(error), guessed=True, unreadable=True)
        return
    for attributes in found:
        try:
            yield parse_attributes(attributes, file, defs=folder)
        except ConfigurationError as error:
            yield broken_pipeline(attributes, file, error)


def broken_pipeline(attributes: object, file: Path, error: ConfigurationError) -> BrokenPipeline:
    """The pipeline of these attributes, of which `error` says why it cannot be loaded."""
    name, certain = written_name(attributes, file)
    return BrokenPipeline(name, file, str(error), guessed=not certain)
