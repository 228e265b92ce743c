"""What must hold of a plan that is read: whoever can write the output root may have changed its files.

Everything raises ValueError with the reason; `plan_files.py` names the file and the next step.
"""

import datetime
import re
from dataclasses import replace
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pydantic

from batch_assets import paths
from batch_assets.sharding.plan import PlanSummary
from batch_assets.sources.column_types import arrow_type
from batch_assets.sources.hive import TYPES

MOST_ROWS = 20_000_000
"""Of a table: a few bytes can claim any number of equal rows."""
MOST = 2**48
"""Of a number: sums over the rows still fit into the ledger's columns."""
_NUMBERS = ("first_row", "last_row", "first_byte", "last_byte", "records")
_FILE_NUMBERS = ("file_size", "file_records", "file_next_row", "file_next_byte")
_NULLABLE = "file_size"  # of a file of an earlier generation
_SHARD = rf"^(?:{paths.SHARD_KEY})?$"
_OUTSIDE = r"^$|^/|(?:^|/)\.\.(?:/|$)|\x00"
_SPOOL = r"^[0-9a-f]{0,64}$"
_SUMMARY = pydantic.TypeAdapter(PlanSummary)


def parse_summary(data: bytes, generation: int) -> PlanSummary:
    """A generation's summary, without its files. Fields of later versions are passed over."""
    content: Any = orjson.loads(data)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    try:
        summary = _SUMMARY.validate_json(orjson.dumps({**content, "files": []}), strict=True)
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    if summary.generation != generation:
        raise ValueError(f"generation: {summary.generation}, not {generation}")
    for name in ("shards", "records", "bytes", "max_record_bytes"):
        if not 0 <= getattr(summary, name) < 2**63:
            raise ValueError(f"{name}: out of range")
    for plan_type in summary.columns.values():
        arrow_type(plan_type)
    if not all(map(paths.is_shard_key, summary.superseded)):
        raise ValueError("superseded: not keys of shards")
    if unknown := set(summary.partitions.values()).difference(TYPES):
        raise ValueError(f"partitions: no type {min(unknown)[:80]!r}")
    if summary.table is not None and re.fullmatch("[0-9a-f]{64}", summary.table.files) is None:
        raise ValueError("table: files: is no digest")
    if "\0" in summary.source_uri + summary.base_uri:
        raise ValueError("base_uri: holds a NUL")
    datetime.datetime.fromisoformat(summary.created)
    return replace(summary, files=())


def check_table(table: pa.Table) -> None:
    """Whether every row names a shard, a path below the source, and numbers that may be."""
    table.validate(full=True)  # texts are UTF-8
    for name in table.column_names:
        if name != _NULLABLE and table.column(name).null_count:
            raise ValueError(f"{name}: is null")
    for name in (*_NUMBERS, *_FILE_NUMBERS):
        found = pc.call_function("min_max", [table.column(name)]).as_py()
        if found["min"] is not None and not 0 <= found["min"] <= found["max"] <= MOST:
            raise ValueError(f"{name}: out of range")
    for first, last in (("first_row", "last_row"), ("first_byte", "last_byte")):
        if _any("greater", table.column(first), table.column(last)):
            raise ValueError(f"{last}: is less than {first}")
    if not _all_match(table.column("shard"), _SHARD):
        raise ValueError("shard: is no shard's key")
    if not _all_match(table.column("spool"), _SPOOL):
        raise ValueError("spool: is no digest")
    if _any("match_substring_regex", table.column("path"), options=pc.MatchSubstringOptions(_OUTSIDE)):
        raise ValueError("path: does not lie below the source")


def _all_match(column: pa.ChunkedArray, pattern: str) -> bool:
    found = pc.call_function("match_substring_regex", [column], pc.MatchSubstringOptions(pattern))
    return pc.call_function("all", [found]).as_py() is not False  # None: no rows


def _any(function: str, *columns: pa.ChunkedArray, options: pc.FunctionOptions | None = None) -> bool:
    found = pc.call_function(function, list(columns), options)
    return pc.call_function("any", [found]).as_py() is True
