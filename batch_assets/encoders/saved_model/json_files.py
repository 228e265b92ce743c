"""The JSON files of a model's directory, as far as they can be read: what is broken is for the libraries to say."""

import contextlib
import json
from pathlib import Path
from typing import Any


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file, or none that holds one."""
    found = _read(file)
    return found if isinstance(found, dict) else {}


def read_modules(folder: Path) -> list[dict[str, Any]]:
    """The entries of a directory's modules.json, which sentence-transformers writes; empty where it has none."""
    found = _read(folder / "modules.json")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _read(file: Path) -> Any:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))
    return None
