"""Projects as `dg` and this program know them: which folder one is, and where its pipelines are declared."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def project_folder(file: Path) -> Path:
    """From where the relative paths of a YAML file count.

    The nearest folder above `file` that holds a workspace.yaml or is a project of `dg`; else the file's own.
    """
    found = (
        folder
        for folder in file.parents
        if (folder / "workspace.yaml").is_file() or _dg_project(folder) is not None
    )
    return next(found, file.parent)


def defs_of_project(place: Path) -> Path | None:
    """The defs folder of the `dg` project that `place` is in; None where it is in none, or that has no such folder."""
    for folder in (place, *place.parents):
        project = _dg_project(folder)
        if project is None:
            continue
        root = str(project.get("root_module", folder.name))
        module = str(project.get("defs_module", f"{root}.defs")).replace(".", "/")
        return next((path for path in (folder / "src" / module, folder / module) if path.is_dir()), None)
    return None


def _dg_project(folder: Path) -> Mapping[str, Any] | None:
    """What the project of `dg` that the folder is says of itself; None where it is none."""
    for name, section in (("dg.toml", ()), ("pyproject.toml", ("tool", "dg"))):
        try:
            content: Any = tomllib.loads((folder / name).read_text(encoding="utf-8"))
            for part in section:
                content = content[part]
            if content["directory_type"] == "project":
                return content.get("project", {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # somebody else's file, whatever is in it
    return None
