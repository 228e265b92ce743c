"""Write 8,000 docstrings of this Python installation as JSON lines: real text for the quickstart.

    python examples/make_docstrings.py [FOLDER]          by default .dagster/demo/docstrings

The standard library comes first (its top-level modules before its packages), then what is
installed in site-packages. Sources are parsed, never imported. Each line has `id` (the qualified
name), `text`, `kind`, `module`, `library` and `line`. A folder that is complete is left alone, so
that a second demo finds the files it has planned.
"""

import ast
import itertools
import json
import os
import shutil
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

WANTED = 8_000
FILES = 8
SHORTEST = 20  # characters; below, a docstring says no more than the name
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}


@dataclass(frozen=True)
class Docstring:
    """One record; `line` is where its definition begins in the module's file."""

    id: str
    text: str
    kind: str
    module: str
    library: str
    line: int


def find_docstrings() -> Iterator[Docstring]:
    """All docstrings of this installation that are worth reading, each text and each name once."""
    texts: set[str] = set()
    names: set[str] = set()
    for library, root in _libraries():
        for file in _sources(root):
            for found in _parse(file, root, library):
                if len(found.text) > SHORTEST and found.text not in texts and found.id not in names:
                    texts.add(found.text)
                    names.add(found.id)
                    yield found


def write_docstrings(folder: Path, wanted: int = WANTED, files: int = FILES) -> int:
    """Fill `folder` with `files` files of equal length; returns the records in it.

    The folder appears whole or not at all. One that is complete stays as it is; one that holds
    anything else is refused.
    """
    if len(list(folder.glob("docstrings-*.jsonl"))) != files:
        if folder.exists() and any(folder.iterdir()):
            sys.exit(f"{folder}: holds other files than docstrings; remove it or name another folder")
        records = list(itertools.islice(find_docstrings(), wanted))
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for number, part in enumerate(_cut(records, files)):
                lines = "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in part)
                (unfinished / f"docstrings-{number:02d}.jsonl").write_bytes(lines.encode())
            unfinished.chmod(0o755)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl"))


def _libraries() -> list[tuple[str, Path]]:
    """Names and folders of what is installed, the standard library first."""
    paths = sysconfig.get_paths()
    installed = dict.fromkeys(Path(paths[name]) for name in ("purelib", "platlib"))
    return [("standard library", Path(paths["stdlib"])), *(("site-packages", folder) for folder in installed)]


def _sources(root: Path) -> list[Path]:
    """The Python files under `root`, those directly in it first, always in the same order."""
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found, key=lambda path: (path.parent != root, path.as_posix()))


def _parse(file: Path, root: Path, library: str) -> Iterator[Docstring]:
    """The docstrings of one file, from top to bottom; none where it is no Python 3."""
    parts = file.relative_to(root).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    try:
        with warnings.catch_warnings(action="ignore"):  # invalid escapes in other people's code
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return
    yield from _walk(tree, module, module, library, inside_class=False)


def _walk(node: ast.AST, name: str, module: str, library: str, inside_class: bool) -> Iterator[Docstring]:
    """The docstrings of `node` and of every definition in it; `name` is its qualified name."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text and _is_unicode(text):
            kind = _kind(node, inside_class)
            yield Docstring(name, text, kind, module, library, line=getattr(node, "lineno", 1))
        inside_class = isinstance(node, ast.ClassDef)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _walk(child, f"{name}.{child.name}", module, library, inside_class)
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _walk(child, name, module, library, inside_class)


def _kind(node: ast.AST, inside_class: bool) -> str:
    if isinstance(node, ast.Module):
        return "module"
    if isinstance(node, ast.ClassDef):
        return "class"
    return "method" if inside_class else "function"


def _is_unicode(text: str) -> bool:
    """False for a lone surrogate, which no file can hold."""
    return text.encode("utf-8", "ignore").decode() == text


def _cut(records: list[Docstring], parts: int) -> list[list[Docstring]]:
    size = -(-len(records) // parts)
    return [records[part * size : (part + 1) * size] for part in range(parts)]


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else ".dagster/demo/docstrings")
    print(f"{write_docstrings(target):,} docstrings of Python {sys.version.split()[0]} in {target}")
