"""Filling in `{{ … }}` in the values of a YAML file: Dagster's template language, in a sandbox.

A YAML file describes a pipeline and runs nothing, so a template reaches the names that Dagster gives
it and no Python behind them. Unlike Dagster's own rendering, a value without braces stays exactly as
it is written, and a variable of the environment that is not set is refused, never filled in as the
word None.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from dagster import ResolutionContext
from dagster.components.resolved.scopes import EnvScope
from jinja2 import Undefined

from batch_assets.components.sandbox import Sandbox
from batch_assets.errors import ConfigurationError
from batch_assets.plain_text import first_line, quoted

REASON_CHARACTERS = 300
_ADDRESS = re.compile(r" at 0x[0-9a-f]+", re.IGNORECASE)


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
        filled = _SANDBOX.fill_in(value, scope)
        # Text that looks like a number comes back as one; the field's own type decides what it is.
        return str(filled) if isinstance(filled, bool | int | float) else filled
    except Exception as error:  # an expression may raise anything
        offered = ", ".join(sorted(scope.keys() - {"env"}))
        raise ConfigurationError(
            f"{where}: {quoted(value)} cannot be filled in: {_reason(error)}; a template may use env.NAME, "
            f"env('NAME', 'default') and {offered}, and nothing of Python behind them"
        ) from None


_SANDBOX = Sandbox()


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
    reason = first_line(error).rstrip(".")
    return _ADDRESS.sub("", reason[:REASON_CHARACTERS])
