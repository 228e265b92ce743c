"""By what a server knows who calls it: the API key, and how urgent its calls are."""

import os

from batch_assets.errors import ConfigurationError

OBJECTIVE = "x-gateway-inference-objective"
"""By this header llm-d's gateway gives priorities, and tells calls that can wait from others."""


def identify(
    objective: str | None, key_variable: str | None, field: str
) -> tuple[dict[str, str], str | None]:
    """The headers of each call, and the API key among them, which is in the environment variable.

    Raises ConfigurationError where it is not there; `field` is the setting that names the variable.
    """
    headers = {} if objective is None else {OBJECTIVE: objective}
    if key_variable is None:
        return headers, None
    key = _api_key(key_variable, field)
    return headers | {"Authorization": f"Bearer {key}"}, key


def _api_key(variable: str, field: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigurationError(f"{field}: {variable} is not set, or empty; put the server's API key there")
    if not key.isascii() or not key.isprintable():
        raise ConfigurationError(
            f"{field}: {variable} holds characters that no header takes; look at how it is set"
        )
    return key
