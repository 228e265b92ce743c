"""Delta tables as other tools write them, with what the library deltalake itself cannot write."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def rows(start: int, stop: int, **columns: Any) -> pa.Table:
    """Rows k<start> … with a text each, and columns of one value."""
    ids = [f"k{n}" for n in range(start, stop)]
    table = pa.table({"id": ids, "text": [f"text {n}" for n in range(start, stop)]})
    for name, value in columns.items():
        table = table.append_column(name, pa.array([value] * len(ids)))
    return table


def append(folder: Path, table: pa.Table, **options: Any) -> None:
    deltalake.write_deltalake(folder, table, mode="append", **options)


def delete_by_vector(folder: Path, positions: Sequence[int]) -> None:
    """Commit that these rows of the first data file are deleted, as Spark does: by a vector, the file stays."""
    log = folder / "_delta_log"
    actions = [
        json.loads(line) for file in sorted(log.glob("*.json")) for line in file.read_text().splitlines()
    ]
    added = next(action["add"] for action in actions if "add" in action)
    vector = _bitmap(positions)
    removed = {name: added[name] for name in ("path", "partitionValues", "size")}
    removed |= {
        "dataChange": True,
        "extendedFileMetadata": True,
        "deletionTimestamp": added["modificationTime"],
    }
    described = {
        "storageType": "i",
        "pathOrInlineDv": _z85(vector),
        "sizeInBytes": len(vector),
        "cardinality": len(positions),
    }
    commit(
        folder,
        {"remove": removed},
        {"add": added | {"deletionVector": described}},
        features=["deletionVectors"],
    )


def commit(folder: Path, *actions: dict[str, Any], features: Sequence[str]) -> None:
    """Append a version to the log, whose readers must know these features."""
    log = folder / "_delta_log"
    version = len(list(log.glob("*.json")))
    protocol = {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": list(features),
        "writerFeatures": list(features),
    }
    lines = [json.dumps(action) for action in ({"protocol": protocol}, *actions)]
    (log / f"{version:020}.json").write_text("\n".join(lines) + "\n")


def _bitmap(positions: Sequence[int]) -> bytes:
    """A RoaringBitmapArray of one bitmap with one array container, by Delta's protocol."""
    values = struct.pack(f"<{len(positions)}H", *sorted(positions))
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(positions) - 1, 16) + values
    return struct.pack("<iqI", 1681511377, 1, 0) + bitmap


def _z85(data: bytes) -> str:
    text = ""
    for start in range(0, len(padded := data + b"\0" * (-len(data) % 4)), 4):
        number = int.from_bytes(padded[start : start + 4], "big")
        text += "".join(_Z85[number // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return text
