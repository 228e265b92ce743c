"""What the package's files import, read from their source: for the tests of layers and dependencies."""

import ast
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "batch_assets"


@dataclass(frozen=True)
class Import:
    """One imported module.

    `deferred` is True inside a function, which runs only when called; `types_only` where only type checkers look.
    """

    file: str
    line: int
    module: str
    deferred: bool
    types_only: bool = False

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def package_imports() -> list[Import]:
    """Every import in every file of the package, but those for type checkers only."""
    return [found for found in all_imports() if not found.types_only]


@functools.cache
def all_imports() -> list[Import]:
    """Every import in every file of the package."""
    return [found for file in sorted(PACKAGE.rglob("*.py")) for found in file_imports(file)]


def import_circles(imports: Iterable[Import]) -> list[list[str]]:
    """Modules of the package that import each other, in whatever way, as sorted groups."""
    modules = {_module_of(file.relative_to(REPOSITORY).as_posix()) for file in PACKAGE.rglob("*.py")}
    below: dict[str, set[str]] = {}
    for found in imports:
        if found.module.startswith("batch_assets"):
            # from batch_assets.x import y: what is imported may be a module, or something in one.
            target = found.module if found.module in modules else found.module.rpartition(".")[0]
            below.setdefault(_module_of(found.file), set()).add(target)

    @functools.cache
    def reached(module: str) -> frozenset[str]:
        seen, waiting = set[str](), [*below.get(module, ())]
        while waiting:
            if (name := waiting.pop()) not in seen:
                seen.add(name)
                waiting += below.get(name, ())
        return frozenset(seen)

    in_circles = [module for module in below if module in reached(module)]
    groups = {
        tuple(sorted(other for other in in_circles if other in reached(module) and module in reached(other)))
        for module in in_circles
    }
    return [list(group) for group in sorted(groups) if len(group) > 1]


def _module_of(file: str) -> str:
    """batch_assets/storage/__init__.py → batch_assets.storage"""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def file_imports(file: Path) -> Iterator[Import]:
    yield from _imports(ast.parse(file.read_bytes()), file.relative_to(REPOSITORY).as_posix(), deferred=False)


def _imports(node: ast.AST, file: str, deferred: bool, types_only: bool = False) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for name in node.names:
            yield Import(file, node.lineno, name.name, deferred, types_only)
    elif isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        if module == "batch_assets":  # from batch_assets import paths
            for name in node.names:
                yield Import(file, node.lineno, f"batch_assets.{name.name}", deferred, types_only)
        else:
            yield Import(file, node.lineno, module, deferred, types_only)
    elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for child in node.body:
            yield from _imports(child, file, deferred, types_only=True)
        for child in node.orelse:
            yield from _imports(child, file, deferred, types_only)
    else:
        deferred = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from _imports(child, file, deferred, types_only)
