"""Filling in `{{ … }}` in the values of a YAML file, with Dagster's own template language.

Unlike Dagster's own rendering, a value without braces stays exactly as it is written, and a
variable of the environment that is not set is refused, never filled in as the word None.
"""

import os
from collections.abc import Mapping
from typing import Any

from dagster import ResolutionContext
from dagster.components.resolved.errors import ResolutionException
from dagster.components.resolved.scopes import EnvScope
from jinja2 import Undefined

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
    try:
        filled = context.with_scope(env=_Environment()).resolve_value(value, as_type=object)
    except ResolutionException as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("UndefinedError: ")
        raise ConfigurationError(f"{where}: {value!r} cannot be filled in: {reason}") from None
    # Text that looks like a number comes back as one; the field's own type decides what it is.
    return str(filled) if isinstance(filled, bool | int | float) else filled


class _Environment(EnvScope):
    """`env`: the process's environment. `{{ env.X or "…" }}` and `{{ env("X", "…") }}` give a default."""

    def __getattr__(self, key: str) -> Any:
        if key.startswith("jinja"):  # how the template language asks what kind of object this is
            raise AttributeError(key)
        return os.environ.get(key, _Unset(f"environment variable {key} is not set"))


class _Unset(Undefined):
    """False where a template asks for a default, an error where it is written out."""

    __str__ = Undefined._fail_with_undefined_error
