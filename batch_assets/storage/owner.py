"""What `pipeline.json` must hold to say whose an output root is.

Who may take a root, and what becomes of the file, is in `control/ownership.py`.
"""

from typing import Any

import orjson

MOST_EPOCHS = 2**32
"""Fences grow with the epoch; a larger one would not fit into the ledger's columns."""
_FIELDS = {"pipeline": str, "epoch": int, "source": list, "configuration": dict}
_OPTIONAL = ("deployment", "taking")
_IN_CONFIGURATION = (("output", "root"), ("source", "id_column"))
"""What is read of the configuration before all of it is checked."""


def parse_owner(data: bytes) -> dict[str, Any] | None:
    """The content of a root's `pipeline.json`; None where this program has not written it."""
    try:
        owner = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(owner, dict) or not all(
        isinstance(owner.get(name), kind) for name, kind in _FIELDS.items()
    ):
        return None
    sections = [(owner["configuration"].get(section, {}), field) for section, field in _IN_CONFIGURATION]
    if not all(isinstance(section, dict) for section, _ in sections):
        return None
    texts = [owner["pipeline"], *owner["source"]]
    texts += [text for name in _OPTIONAL if (text := owner.get(name)) is not None]
    texts += [text for section, field in sections if (text := section.get(field)) is not None]
    # No database and no file system takes a NUL.
    right = all(isinstance(text, str) and "\0" not in text for text in texts)
    if right and not isinstance(owner["epoch"], bool) and 0 <= owner["epoch"] <= MOST_EPOCHS:
        return owner
    return None
