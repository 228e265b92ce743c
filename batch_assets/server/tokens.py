"""Who may ask: the operator by one token, tenants by theirs, all from the environment.

A token is never logged, stored or handed to a child process.
"""

import hmac
import os
import re
from collections.abc import Iterable, Mapping

from batch_assets.errors import ConfigurationError

TOKEN_VARIABLE, TOKENS_VARIABLE = "BATCH_ASSETS_TOKEN", "BATCH_ASSETS_TOKENS"
WEBHOOK_SECRET_VARIABLE = "BATCH_ASSETS_WEBHOOK_SECRET"
SECRET_VARIABLES = (TOKEN_VARIABLE, TOKENS_VARIABLE, WEBHOOK_SECRET_VARIABLE)
OPERATOR = "operator"
_TOKEN = re.compile(r"[\x21-\x7e]{16,}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
Headers = Iterable[tuple[bytes, bytes]]


class Tokens:
    """The tokens, each with the name of whose it is."""

    def __init__(self, names: Mapping[str, str]) -> None:
        """`names` maps tokens to tenants' names, and the operator's to `OPERATOR`."""
        self._names = [(token.encode(), name) for token, name in names.items()]

    def owner(self, headers: Headers) -> str | None:
        """Whose token a request shows, as `Authorization: Bearer …` or `x-api-key: …`; None for no such token.

        Of two headers, or a wrong one beside a right one, nobody's: what was meant cannot be told.
        """
        shown = [_bearer(value) if name == b"authorization" else value.strip() for name, value in headers
                 if name in (b"authorization", b"x-api-key")]  # fmt: skip
        if len(set(shown)) != 1:
            return None
        found = None
        # Each is compared, in a time that does not tell how much of it is right.
        for token, name in self._names:
            if hmac.compare_digest(shown[0], token):
                found = name
        return found


def _bearer(value: bytes) -> bytes:
    """The token of a Bearer header; nothing where it is of another scheme, whose case means nothing (RFC 7235)."""
    scheme, _, token = value.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def read_tokens() -> Tokens:
    """The tokens in the environment. Raises ConfigurationError where there is none, or one that will not do."""
    single, several = os.environ.get(TOKEN_VARIABLE, ""), os.environ.get(TOKENS_VARIABLE, "")
    if not single and not several:
        raise ConfigurationError(
            f"{TOKEN_VARIABLE} is not set; make one with: export {TOKEN_VARIABLE}=$(openssl rand -hex 32), or name "
            f"tenants with their tokens in {TOKENS_VARIABLE}=name:token,name:token"
        )
    names: dict[str, str] = {}
    if single:
        _check(single, TOKEN_VARIABLE)
        names[single] = OPERATOR
    for part in filter(None, (part.strip() for part in several.split(","))):
        name, _, token = part.partition(":")
        where = f"{TOKENS_VARIABLE}: tenant {name!r}"
        if not _TENANT.fullmatch(name) or name == OPERATOR:
            raise ConfigurationError(
                f"{where}: a tenant's name has letters, digits, '_', '-' and '.', and is not {OPERATOR!r}"
            )
        _check(token, where)
        if token in names or name in names.values():
            raise ConfigurationError(f"{where}: each name, and each token, may stand there once")
        names[token] = name
    return Tokens(names)


def _check(token: str, where: str) -> None:
    if not _TOKEN.fullmatch(token):
        raise ConfigurationError(
            f"{where}: its token is none of 16 or more printable ASCII characters without spaces; make one with: "
            "openssl rand -hex 32"
        )
