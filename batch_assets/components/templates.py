"""Filling in `{{ … }}` in the values of a YAML file: Dagster's template language, in a sandbox.

A YAML file describes a pipeline and runs nothing, so a template reaches the names that Dagster gives
it and no Python behind them. Unlike Dagster's own rendering, a value without braces stays exactly as
it is written, and a variable of the environment that is not set is refused, never filled in as the
word None.
"""

import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from dagster import ResolutionContext
from dagster.components.resolved.scopes import EnvScope
from jinja2 import StrictUndefined, Undefined
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batch_assets.errors import ConfigurationError


def render(value: Any, context: ResolutionContext, where: str) -> Any:
    """`value` with every template in it filled in, at any depth.

    `where` (a file and a field) opens the sentence of a ConfigurationError.
    """
    if isinstance(value, Mapping):
        return {key: render(inner, context, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [render(inner, context, f"{where}.{place}") for place, inner in enumerate(value)]
    if not isinstance(value, str) or "{{" not in value:
        return value
    scope = {**context.scope, "env": _Environment()}
    try:
        filled = _SANDBOX.from_string(value).render(scope)
        if isinstance(filled, Undefined):
            str(filled)  # raises, and says what is missing
    except Exception as error:  # an expression may raise anything
        offered = ", ".join(sorted(scope.keys() - {"env"}))
        raise ConfigurationError(
            f"{where}: {value!r} cannot be filled in: {_reason(error)}; a template may use env.NAME, "
            f"env('NAME', 'default') and {offered}, and nothing of Python behind them"
        ) from None
    # Text that looks like a number comes back as one; the field's own type decides what it is.
    return str(filled) if isinstance(filled, bool | int | float) else filled


class _Sandbox(ImmutableSandboxedEnvironment, NativeEnvironment):
    """Keeps native types, as Dagster's engine does; has no globals, and shows no module to a template."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and not isinstance(value, ModuleType)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        # Of a name that does not exist, that is the reason to give, not what was looked for in it.
        return obj if isinstance(obj, Undefined) else super().unsafe_undefined(obj, attribute)


_SANDBOX = _Sandbox(undefined=StrictUndefined)
_SANDBOX.globals.clear()  # cycler, namespace and the like are Python classes


class _Environment(EnvScope):
    """`env`: the process's environment. `{{ env.X or "…" }}` and `{{ env("X", "…") }}` give a default."""

    def __getattr__(self, key: str) -> Any:
        if key.startswith("jinja"):  # how the template language asks what kind of object this is
            raise AttributeError(key)
        return os.environ.get(key, _Unset(f"environment variable {key} is not set"))


class _Unset(Undefined):
    """False where a template asks for a default, an error where it is written out."""

    __str__ = Undefined._fail_with_undefined_error


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
