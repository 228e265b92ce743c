"""What request files of all batch services have in common: record ids, and which records are asked for.

How a request is written, and where files are cut, is each service's business.
"""

import uuid
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from batch_assets.sources.base import Records

RECORD_ID_DIGITS = 11


def record_id(number: int) -> str:
    """What a record is called at a service: its ordinal in the shard, counted from the job's first id."""
    return f"{number:0{RECORD_ID_DIGITS}d}"


def ordinal_of(record_id: Any, records: int, first_id: int = 0) -> int | None:
    """The ordinal that a record id at a service says, of so many records from `first_id` on; None: of none of them."""
    if not isinstance(record_id, str) or len(record_id) != RECORD_ID_DIGITS:
        return None
    if not (record_id.isascii() and record_id.isdigit()):
        return None
    ordinal = int(record_id) - first_id
    return ordinal if 0 <= ordinal < records else None


def wanted_texts(batches: Iterable[Records], ordinals: Collection[int] | None) -> Iterator[tuple[int, str]]:
    """A shard's records by ordinal and text: `ordinals` only, where those are given. Streams."""
    wanted = None if ordinals is None else frozenset(ordinals)
    for records in batches:
        for ordinal, text in zip(records.ordinals, records.texts, strict=True):
            if wanted is None or ordinal in wanted:
                yield ordinal, text


def own_digits() -> str:
    """Part of the names of one rendering's files, which no other has.

    Two deployments may share a staging area, a pipeline's name and a root's path: no file of one is the other's.
    """
    return uuid.uuid4().hex[:8]
