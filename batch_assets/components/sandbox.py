"""The template language of a YAML file: expressions and `if`, with nothing that can grow or run for long.

Without loops and assignments every part of a template is computed once. What is left to bound is what makes much
out of little: repeating, padding, replacing, joining, and writing lists down as text, which doubles each backslash.
"""

import datetime
from collections.abc import Callable, Iterable, Sized
from types import ModuleType
from typing import Any

from dagster import PartitionsDefinition
from jinja2 import StrictUndefined, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

TEMPLATE_CHARACTERS = 20_000
OPERAND_CHARACTERS = 4_096
"""Of what is joined or replaced: two operands make at most as much as their product."""

NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.CondExpr, nodes.Const, nodes.Name,
    nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Call, nodes.Keyword, nodes.Filter, nodes.Test, nodes.Compare,
    nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div,
    nodes.FloorDiv, nodes.Mod, nodes.Concat, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair,
)  # fmt: skip
TEXT_METHODS = frozenset(
    "capitalize casefold count endswith find index isalnum isalpha isdigit islower isnumeric isspace isupper join "
    "lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip split "
    "splitlines startswith strip swapcase title upper".split()
)
SCALARS = (str, int, float, datetime.date, datetime.time, datetime.timedelta)


def text(value: Any) -> str:
    """A single value as text; raises where it is a list, or an object, whose text would show its address."""
    if value is not None and not isinstance(value, (*SCALARS, Undefined)):
        raise SecurityError(f"a {type(value).__name__} cannot be made into text")
    return str(value)  # of what is undefined, this raises what is missing


def plain(value: Any) -> Any:
    """`value`, if it is text, a number, a time, or a list or mapping of these."""
    if isinstance(value, list | tuple):
        for inner in value:
            plain(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            plain(key)
            plain(inner)
    elif isinstance(value, Undefined):
        str(value)  # raises what is missing
    elif value is not None and not isinstance(value, SCALARS):
        raise SecurityError(f"it gives a {type(value).__name__}, and not text, a number or a list")
    return value


def _bounded(value: str) -> str:
    if len(value) > OPERAND_CHARACTERS:
        raise SecurityError(f"text of more than {OPERAND_CHARACTERS} characters cannot be joined or replaced")
    return value


def _replace(value: Any, old: Any, new: Any, count: int = -1) -> str:
    value, old, new = (_bounded(text(part)) for part in (value, old, new))
    return _bounded(value.replace(old, new, count))


def _join(values: Iterable[Any], separator: Any = "") -> str:
    parts = [text(value) for value in plain(values)]
    if len(parts) > OPERAND_CHARACTERS:  # empty ones
        raise SecurityError(f"more than {OPERAND_CHARACTERS} values cannot be joined")
    _bounded("".join(parts))
    return _bounded(_bounded(text(separator)).join(parts))


def _concatenate(values: Iterable[Any]) -> str:
    return "".join(text(value) for value in values)


FILTER_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: FILTERS[name] for name in ("default", "d", "int", "float", "list", "length", "count", "first", "last")},
    "string": text,
    "lower": lambda value: text(value).lower(),
    "upper": lambda value: text(value).upper(),
    "title": lambda value: text(value).title(),
    "capitalize": lambda value: text(value).capitalize(),
    "trim": lambda value, characters=None: text(value).strip(characters),
    "replace": _replace,
    "join": _join,
    "concatenate": _concatenate,
}  # fmt: skip


class _Concatenation(NodeTransformer):
    """Has `~` done by a filter: of the operators it is the one that the sandbox does not show."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - the name of the node's class
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "concatenate", [], [], None, None, lineno=node.lineno)


class Sandbox(ImmutableSandboxedEnvironment, NativeEnvironment):
    """Keeps native types, as Dagster's engine does; has no globals, and shows no module to a template."""

    intercepted_binops = frozenset({"*", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, finalize=plain)
        self.globals.clear()  # cycler, namespace and the like are Python classes
        self.filters = FILTER_FUNCTIONS

    def fill_in(self, template: str, scope: dict[str, Any]) -> Any:
        """The template's value. Raises whatever its expressions do."""
        if len(template) > TEMPLATE_CHARACTERS:
            raise SecurityError(f"it is longer than {TEMPLATE_CHARACTERS} characters")
        tree = self.parse(template)
        for node in tree.find_all(nodes.Node):
            if not isinstance(node, NODES):
                raise SecurityError(f"{type(node).__name__} is not allowed in a template")
        return self.from_string(_Concatenation().visit(tree)).render(scope)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str):
            return attr in TEXT_METHODS
        kind: type[Any] = obj if isinstance(obj, type) else type(obj)
        # A number can be made into any number of bytes, and partitions enumerate every hour of millennia.
        if issubclass(kind, int | float | bytes | PartitionsDefinition) or isinstance(value, ModuleType):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """No `format`, which pads to any width: is_safe_attribute decides."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        # Of a name that does not exist, that is the reason to give, not what was looked for in it.
        return obj if isinstance(obj, Undefined) else super().unsafe_undefined(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        # What is undefined has a size too, but raises what is missing.
        if any(isinstance(part, Sized) and not isinstance(part, Undefined) for part in (left, right)):
            raise SecurityError(f"{operator} is for numbers alone")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as it is called
        value, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(value, str) and name == "replace":
            return _replace(value, *args, **kwargs)
        if isinstance(value, str) and name == "join":
            return _join(*args, separator=value)
        return super().call(__context, __obj, *args, **kwargs)
