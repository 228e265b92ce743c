"""What the package's files import, read from their source: for the tests of layers and dependencies."""

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "batch_assets"


@dataclass(frozen=True)
class Import:
    """One imported module; `deferred` is True inside a function, which runs only when called."""

    file: str
    line: int
    module: str
    deferred: bool

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


@functools.cache
def package_imports() -> list[Import]:
    """Every import in every file of the package, but those for type checkers only."""
    return [found for file in sorted(PACKAGE.rglob("*.py")) for found in file_imports(file)]


def file_imports(file: Path) -> Iterator[Import]:
    yield from _imports(ast.parse(file.read_bytes()), file.relative_to(REPOSITORY).as_posix(), deferred=False)


def _imports(node: ast.AST, file: str, deferred: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for name in node.names:
            yield Import(file, node.lineno, name.name, deferred)
    elif isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        if module == "batch_assets":  # from batch_assets import paths
            for name in node.names:
                yield Import(file, node.lineno, f"batch_assets.{name.name}", deferred)
        else:
            yield Import(file, node.lineno, module, deferred)
    elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for child in node.orelse:
            yield from _imports(child, file, deferred)
    else:
        deferred = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from _imports(child, file, deferred)
