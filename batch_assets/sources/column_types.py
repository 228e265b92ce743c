"""The names of column types in plans, and what each is in Arrow.

Formats that declare no types have five: `int64`, `float64`, `bool`, `string`, and `json` for what
is mixed or nested, stored as JSON text. A Parquet column keeps the type it declares, in one of
the forms that `declared_type` gives. Which type holds another one's values is in `widening.py`, how values
get into a type in `arrays.py`.
"""

import functools
import re
import zoneinfo
from typing import Any

import orjson
import pyarrow as pa

UUID_EXTENSION, JSON_EXTENSION, BOOL_EXTENSION = "arrow.uuid", "arrow.json", "arrow.bool8"
MOST_DIGITS = 38  # of a decimal128; Polars gives up a file that has more, DuckDB rounds them
_MOST_NESTED = 32  # levels
_SIMPLE: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "json": pa.string(),
    "binary": pa.binary(),
    "date32": pa.date32(),
    "time32[ms]": pa.time32("ms"),
    "time64[us]": pa.time64("us"),
    "time64[ns]": pa.time64("ns"),
    **{f"duration[{unit}]": pa.duration(unit) for unit in ("s", "ms", "us", "ns")},
    **{f"timestamp[{unit}]": pa.timestamp(unit) for unit in ("ms", "us", "ns")},
}
_NAMES = {found: name for name, found in _SIMPLE.items() if name != "json"}
_ZONED = re.compile(r"timestamp\[(ms|us|ns), ([^\[\]\x00-\x1f]{1,80})\]")
DECIMAL = re.compile(r"decimal(128|256)\(([0-9]{1,2}), (-?[0-9]{1,3})\)")
FIXED_BINARY = re.compile(r"fixed_size_binary\[([0-9]{1,9})\]")


@functools.lru_cache(maxsize=10_000)
def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a plan's type. Raises ValueError where there is none of that name."""
    return _arrow_type(name, 0)


def _arrow_type(name: str, level: int) -> pa.DataType:
    if level > _MOST_NESTED:
        raise ValueError(f"column types are nested more than {_MOST_NESTED} levels deep")
    if name in _SIMPLE:
        return _SIMPLE[name]
    if name == "null" and level:
        return pa.null()
    try:
        if match := _ZONED.fullmatch(name):
            return pa.timestamp(match[1], match[2])
        if match := DECIMAL.fullmatch(name):
            make = pa.decimal128 if match[1] == "128" else pa.decimal256
            return make(int(match[2]), int(match[3]))
        if match := FIXED_BINARY.fullmatch(name):
            return pa.binary(int(match[1]))
        if name.startswith("{"):
            return _nested_type(orjson.loads(name), level)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, pa.ArrowException) as error:
        raise ValueError(f"no column type {name[:80]!r} ({error})") from None
    raise ValueError(f"no column type {name[:80]!r}")


def _nested_type(spec: dict[str, Any], level: int) -> pa.DataType:
    def inner(one: Any) -> pa.DataType:
        return _arrow_type(one if isinstance(one, str) else orjson.dumps(one).decode(), level + 1)

    if "list" in spec:
        # Parquet names a list's items so, whatever Arrow calls them.
        return pa.list_(pa.field("element", inner(spec["list"])), int(spec.get("size", -1)))
    if "map" in spec:
        key, value = spec["map"]
        return pa.map_(inner(key), inner(value))
    return pa.struct([pa.field(field, inner(one)) for field, one in spec["struct"].items()])


def declared_type(data_type: pa.DataType) -> str | None:
    """The plan's type for what a Parquet column declares; None for a column of nothing but nulls.

    Text and bytes of any form are `string` and `binary`, what a dictionary or an extension stands for is
    its own type, except that UUIDs are text, and so are decimals of more than 38 digits. What else Parquet or
    its readers cannot hold is JSON text.
    """
    found = _declared(data_type, 0)
    return None if found == "null" else found if isinstance(found, str) else orjson.dumps(found).decode()


def _declared(found: Any, level: int) -> Any:
    """A type's name, or the object that `declared_type` writes as one."""
    if level > _MOST_NESTED:
        return "json"
    if isinstance(found, pa.BaseExtensionType):
        is_json = found.extension_name == JSON_EXTENSION and not level
        stands_for = {UUID_EXTENSION: pa.string(), BOOL_EXTENSION: pa.bool_()}
        return (
            "json" if is_json else _declared(stands_for.get(found.extension_name, found.storage_type), level)
        )
    if pa.types.is_dictionary(found):
        return _declared(found.value_type, level)
    if pa.types.is_null(found):
        return "null"
    if pa.types.is_fixed_size_binary(found) and found.byte_width:
        return f"fixed_size_binary[{found.byte_width}]"
    if is_text(found) or is_bytes(found):
        return "string" if is_text(found) else "binary"
    if pa.types.is_date(found):
        return "date32"
    if pa.types.is_timestamp(found):
        unit = "ms" if found.unit == "s" else found.unit  # Parquet has no seconds
        return f"timestamp[{unit}]" if found.tz is None else f"timestamp[{unit}, {_zone(found.tz)}]"
    if found == pa.time32("s"):
        return "time32[ms]"
    if pa.types.is_decimal(found) and 0 <= found.scale <= found.precision <= MOST_DIGITS:
        return f"decimal128({found.precision}, {found.scale})"
    if pa.types.is_nested(found):
        return _declared_nested(found, level)
    return _NAMES.get(found, "string")


@functools.lru_cache
def _zone(name: str) -> str:
    """A time zone by its name, where readers know it: Polars gives up a whole file for "+05:30"."""
    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not there, no name, a folder of names
        return "UTC"
    return name


def _declared_nested(found: Any, level: int) -> Any:
    fields = [found.field(place) for place in range(found.num_fields)] if not pa.types.is_union(found) else []
    if pa.types.is_map(found):
        parts = [_declared(found.key_type, level + 1), _declared(found.item_type, level + 1)]
        return "json" if "json" in parts or "null" in parts else {"map": parts}
    parts = [_declared(field.type, level + 1) for field in fields]
    names = [field.name for field in fields]
    if not parts or "json" in parts or len(set(names)) < len(names):
        return "json"
    if pa.types.is_struct(found):
        return {"struct": dict(zip(names, parts, strict=True))}
    if pa.types.is_fixed_size_list(found) and found.list_size:
        return {"list": parts[0], "size": found.list_size}
    return {"list": parts[0]}


def is_text(data_type: pa.DataType) -> bool:
    """Whether it is one of Arrow's three types of text."""
    return (
        pa.types.is_string(data_type)
        or pa.types.is_large_string(data_type)
        or pa.types.is_string_view(data_type)
    )


def is_list_view(data_type: pa.DataType) -> bool:
    """Whether it is one of Arrow's two types of lists that name a place and a length each."""
    return pa.types.is_list_view(data_type) or pa.types.is_large_list_view(data_type)


def is_bytes(data_type: pa.DataType) -> bool:
    """Whether it is one of Arrow's four types of bytes."""
    return (
        pa.types.is_binary(data_type)
        or pa.types.is_large_binary(data_type)
        or pa.types.is_binary_view(data_type)
        or pa.types.is_fixed_size_binary(data_type)
    )
