"""`--save NAME`: an ad hoc pipeline as a `defs.yaml`, for the UI: checked before anything runs, written after."""

from pathlib import Path

import yaml

from batch_assets.cli.console import errors
from batch_assets.components.attributes import COMPONENT_TYPE
from batch_assets.components.declared import load_folder
from batch_assets.errors import ConfigurationError
from batch_assets.settings.pipeline import PIPELINE_NAME, PipelineSettings
from batch_assets.storage import same_place


def check_savable(settings: PipelineSettings, folder: Path) -> None:
    """Refuse a name that is not legal or taken, and a root that another pipeline has. Raises ConfigurationError."""
    name = settings.name
    if not PIPELINE_NAME.fullmatch(name):
        raise ConfigurationError(f"--save {name!r}: use 1 to 24 of a-z, 0-9 and _, beginning with a letter")
    file = _file(settings, folder)
    if file.exists() and file.read_text(encoding="utf-8") != _text(settings):
        raise ConfigurationError(f"--save {name}: {file} exists and says something else; choose another name")
    declared = load_folder(folder)
    if declared.why_broken(name) is not None and not file.exists():
        raise ConfigurationError(
            f"--save {name}: that may be a pipeline's in {folder} already: {declared.why_broken(name)}"
        )
    for other in declared.pipelines.values():
        same_root = same_place(other.output.root, settings.output.root)
        if other.name == name and not file.exists():
            raise ConfigurationError(
                f"--save {name}: there is a pipeline of that name in {folder}; choose another"
            )
        if other.name != name and same_root:
            raise ConfigurationError(
                f"--save {name}: {settings.output.root} is the output root of pipeline {other.name!r}; "
                "give each pipeline a root of its own"
            )


def save_pipeline(settings: PipelineSettings, folder: Path) -> None:
    """Write `settings` as NAME/defs.yaml under a defs folder, and say so."""
    file = _file(settings, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_text(settings), encoding="utf-8")
    errors.print(f"saved as {file}", markup=False, soft_wrap=True)


def _file(settings: PipelineSettings, folder: Path) -> Path:
    return folder / settings.name / "defs.yaml"


def _text(settings: PipelineSettings) -> str:
    content = {"type": COMPONENT_TYPE, "attributes": settings.model_dump(mode="json", exclude_defaults=True)}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
