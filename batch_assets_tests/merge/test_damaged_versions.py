"""A published version whose files somebody has changed: what is wrong is told, and nothing outside is read."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets import paths
from batch_assets.errors import AccountingError
from batch_assets.merge.base import read_manifest
from batch_assets.merge.parquet import merge
from batch_assets.merge.publishing import publish
from batch_assets.merge.search import search
from batch_assets.merge.verification import verify
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import DIMENSIONS, write_shard


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A root with a published version of two shards."""
    root = open_storage(str(tmp_path / "root"))
    for number in range(2):
        write_shard(root, f"g0001-{number:05d}", "eee", base=10 * number)
    result = merge(root, [("g0001-00000", 3), ("g0001-00001", 3)], "f" * 16)
    assert publish(root, result.manifest.version, None)
    return root


def change_manifest(storage: Storage, change: Callable[[dict[str, Any]], None]) -> str:
    """The version whose manifest was changed."""
    version = storage.read(paths.CURRENT).decode().strip()
    content = orjson.loads(storage.read(paths.merged_manifest(version)))
    change(content)
    storage.write(paths.merged_manifest(version), orjson.dumps(content))
    return version


NAMED: dict[str, Callable[[dict[str, Any], str], None]] = {
    "a part": lambda content, name: content["parts"][1].update(uri=name),
    "the failures": lambda content, name: content["failures"].update(uri=name),
    "a group": lambda content, name: content.update(groups=[{"name": "a", "folder": name, "rows": 0}]),
    "the version before": lambda content, name: content.update(previous=name),
}


@pytest.mark.parametrize(
    "name", ["../../../outside.parquet", "/outside", "a/../b", "a/./b", "a//b", "", "a\0b"]
)
@pytest.mark.parametrize("place", NAMED)
def test_a_manifest_does_not_lead_out_of_its_folder(storage: Storage, place: str, name: str) -> None:
    version = change_manifest(storage, lambda content: NAMED[place](content, name))
    with pytest.raises(AccountingError, match=r"manifest\.json: names '.*merge again"):
        read_manifest(storage, version)
    assert any("manifest.json: names '" in problem for problem in verify(storage).problems)


def ids(values: list[Any], type: pa.DataType, nullable: bool = True) -> Callable[[pa.Table], pa.Table]:
    field = pa.field("record_id", type, nullable=nullable)
    return lambda table: table.set_column(0, field, pa.array(values, type))


def vectors(values: list[Any], type: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(
            table.schema.get_field_index("embedding"), "embedding", pa.array(values, type)
        )

    return change


CHANGES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "no id": lambda table: table.drop_columns(["record_id"]),
    "null ids": ids([None, "a", "b"], pa.string()),
    "numbers as ids": ids([1, 2, 3], pa.int64(), nullable=False),
    "ids that are not UTF-8": lambda table: table.set_column(
        0, table.schema.field(0), pa.array([b"\xff"] * 3, pa.binary()).view(pa.string())
    ),
    "no vectors": lambda table: table.drop_columns(["embedding"]),
    "texts as vectors": vectors(["a", "b", "c"], pa.string()),
    "null vectors": vectors([None] * 3, pa.list_(pa.float32(), DIMENSIONS)),
    "vectors of another length": vectors([[1.0]] * 3, pa.list_(pa.float32(), 1)),
    "vectors of all lengths": vectors([[], [1.0], [1.0, 2.0]], pa.list_(pa.float32())),
    "vectors of another type": vectors([[1.0] * DIMENSIONS] * 3, pa.list_(pa.float64(), DIMENSIONS)),
    "another column": lambda table: table.append_column("x", pa.array([1, 2, 3])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_search_tells_which_part_was_changed(storage: Storage, change: str) -> None:
    version = storage.read(paths.CURRENT).decode().strip()
    part = Path(storage.uri) / paths.merged_part(version, 1)
    pq.write_table(CHANGES[change](pq.ParquetFile(part).read()), part)
    with pytest.raises(AccountingError, match=r"part-00001\.parquet: "):
        search(storage, np.ones(DIMENSIONS), 6)


@pytest.mark.parametrize(
    "changed",
    [
        {"columns": {"x": "evil"}},
        {"dimensions": 0},
        {"dimensions": -1},
        {"dimensions": 10**12},
        {"vector_dtype": "evil"},
        {"rows": None},
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(storage: Storage, changed: dict[str, Any]) -> None:
    change_manifest(storage, lambda content: content.update(changed))
    with pytest.raises(AccountingError, match=r"manifest\.json: not a manifest .*; merge again"):
        search(storage, np.ones(DIMENSIONS), 6)


SUMS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "fewer rows": (lambda content: content.update(rows=5), "rows: 5, but its parts have 6 together"),
    "a part fewer": (lambda content: content["parts"].pop(), "rows: 6, but its parts have 3 together"),
    "a part less than empty": (
        lambda content: (content["parts"][0].update(rows=-1), content["parts"][1].update(rows=7)),
        "part-00000.parquet' has -1 rows",
    ),
    "a part twice": (
        lambda content: content["parts"][1].update(uri=content["parts"][0]["uri"]),
        "names 'data/part-00000.parquet' twice",
    ),
    "failures as a part": (
        lambda content: content["failures"].update(uri=content["parts"][0]["uri"]),
        "names 'data/part-00000.parquet' twice",
    ),
}


@pytest.mark.parametrize("change", SUMS)
def test_a_manifest_whose_parts_are_not_its_rows_is_refused(storage: Storage, change: str) -> None:
    changed, told = SUMS[change]
    version = change_manifest(storage, changed)
    with pytest.raises(
        AccountingError, match=rf"manifest\.json: not a manifest .*{re.escape(told)}.*; merge again"
    ):
        read_manifest(storage, version)
