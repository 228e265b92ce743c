"""What `pipeline.json` must hold to say whose an output root is.

Who may take a root, and what becomes of the file, is in `control/ownership.py`.
"""

from typing import Any

import orjson

MOST_EPOCHS = 2**32
"""Fences grow with the epoch; a larger one would not fit into the ledger's columns."""
_FIELDS = {"pipeline": str, "epoch": int, "source": list, "configuration": dict}


def parse_owner(data: bytes) -> dict[str, Any] | None:
    """The content of a root's `pipeline.json`; None where this program has not written it."""
    try:
        owner = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if (
        isinstance(owner, dict)
        and all(isinstance(owner.get(name), kind) for name, kind in _FIELDS.items())
        and all(isinstance(source, str) for source in owner["source"])
        and 0 <= owner["epoch"] <= MOST_EPOCHS
    ):
        return owner
    return None
