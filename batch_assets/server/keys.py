"""The key by which a client's request is known again when it is repeated."""

import re

from starlette.requests import Request

from batch_assets.server.answers import Refused

HEADER = "Idempotency-Key"
MOST_CHARACTERS = 255
_KEY = re.compile(rf"[\x20-\x7e]{{1,{MOST_CHARACTERS}}}")


def given_key(request: Request) -> str | None:
    """The key that a request comes with; None for none. Raises Refused for one that cannot be used."""
    keys = request.headers.getlist(HEADER)
    if not keys:
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise Refused(400, f"{HEADER}: write one key of 1 to {MOST_CHARACTERS} printable ASCII characters")
    return keys[0]
