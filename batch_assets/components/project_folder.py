"""The folder of the project that a YAML file belongs to: from there its relative paths count."""

import tomllib
from pathlib import Path
from typing import Any


def project_folder(file: Path) -> Path:
    """The nearest folder above `file` that holds a workspace.yaml or is a project of `dg`; else the file's own."""
    return next((folder for folder in file.parents if _is_project(folder)), file.parent)


def _is_project(folder: Path) -> bool:
    if (folder / "workspace.yaml").is_file():
        return True
    return _is_dg_project(folder / "dg.toml", []) or _is_dg_project(folder / "pyproject.toml", ["tool", "dg"])


def _is_dg_project(file: Path, section: list[str]) -> bool:
    """Whether `file` says so in `section`; one that cannot be read says nothing."""
    try:
        content: Any = tomllib.loads(file.read_text(encoding="utf-8"))
        for name in section:
            content = content[name]
        return content["directory_type"] == "project"
    except (OSError, ValueError, KeyError, TypeError):
        return False
