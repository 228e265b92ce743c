import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import AccountingError
from batch_assets.merge.checks import check_accounting, check_vectors
from batch_assets.merge.parquet import merge
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import unit_vectors, write_shard

FINGERPRINT = "f" * 16
OLD, NEW = "g0001-00000", "g0002-00000"
DAY = datetime.date(2024, 1, 2)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def merged(storage: Storage) -> tuple[pl.DataFrame, dict[str, str]]:
    manifest = merge(storage, [(OLD, 2), (NEW, 2)], FINGERPRINT).manifest
    assert check_accounting(storage, manifest).passed
    assert check_vectors(storage, manifest).passed
    frames = [pl.read_parquet(f"{storage.uri}/{manifest.path(part)}") for part in manifest.parts]
    return pl.concat(frames), manifest.columns


# (old type, old values, new type, new values) → (type, all values)
CASES = [
    ("int64", [1, None], "float64", [0.5, 2.0], "float64", [1.0, None, 0.5, 2.0]),
    ("int64", [2**53 + 1, 1], "float64", [0.5, None], "json", ["9007199254740993", "1", "0.5", None]),
    ("int64", [None, None], "float64", [0.5, 1.5], "float64", [None, None, 0.5, 1.5]),
    ("string", ['a "b"', None], "int64", [7, 8], "json", ['"a \\"b\\""', None, "7", "8"]),
    ("bool", [True, None], "string", ["x", "y"], "json", ["true", None, '"x"', '"y"']),
    ("json", ['{"a":1}', None], "string", ["x", "y"], "json", ['{"a":1}', None, '"x"', '"y"']),
    ("string", [None, None], "json", ['{"a":1}', "2"], "json", [None, None, '{"a":1}', "2"]),
    ("string", [None, None], "date32", [DAY, None], "date32", [None, None, DAY, None]),
    (
        "string",
        ["2024-01-02", None],
        "date32",
        [DAY, None],
        "string",
        ["2024-01-02", None, "2024-01-02", None],
    ),
    ("int8", [1, None], "int64", [2**40, 2], "int64", [1, None, 2**40, 2]),
    ("uint64", [2**64 - 1, 1], "int64", [-1, 2], "json", ["18446744073709551615", "1", "-1", "2"]),
    ("float32", [0.5, None], "float64", [0.1, 2.0], "float64", [0.5, None, 0.1, 2.0]),
    ("float32", [0.1, None], "string", ["x", "y"], "json", ["0.1", None, '"x"', '"y"']),
    ("json", ["{}", None], '{"list":"date32"}', [[DAY], []], "json", ["{}", None, '["2024-01-02"]', "[]"]),
    (
        '{"list":"null"}',
        [[], [None]],
        '{"list":"int64"}',
        [[1], []],
        '{"list":"int64"}',
        [[], [None], [1], []],
    ),
    ("json", ["[1]", "2"], "json", ["null", "{}"], "json", ["[1]", "2", "null", "{}"]),
]


@pytest.mark.parametrize(("old", "before", "new", "after", "unified", "expected"), CASES)
def test_columns_of_different_types_lose_nothing(
    storage: Storage, old: str, before: list, new: str, after: list, unified: str, expected: list
) -> None:
    write_shard(storage, OLD, "ee", columns={"c": old}, values={"c": before})
    write_shard(storage, NEW, "ee", base=10, columns={"c": new}, values={"c": after})
    frame, columns = merged(storage)
    assert columns == {"c": unified}
    assert frame["c"].to_list() == expected


def test_a_new_column_is_null_in_older_shards(storage: Storage) -> None:
    write_shard(storage, OLD, "ee", columns={"a": "int64"}, values={"a": [1, 2]})
    columns = {"b": "string", "a": "int64"}
    write_shard(storage, NEW, "ee", base=10, columns=columns, values={"a": [3, 4], "b": ["x", "y"]})
    frame, _ = merged(storage)
    assert frame.columns[3:5] == ["a", "b"]
    assert frame["a"].to_list() == [1, 2, 3, 4]
    assert frame["b"].to_list() == [None, None, "x", "y"]


def test_half_precision_vectors_become_float32_beside_float32_ones(storage: Storage) -> None:
    write_shard(storage, OLD, "ee", vector_dtype="float16")
    write_shard(storage, NEW, "ee", base=10)
    frame, _ = merged(storage)
    assert frame.schema["embedding"] == pl.Array(pl.Float32, 8)
    np.testing.assert_allclose(frame["embedding"].to_numpy(), unit_vectors([0, 1, 10, 11]), atol=1e-3)


def test_a_cast_part_keeps_the_layout(storage: Storage) -> None:
    write_shard(storage, OLD, "ee", columns={"a": "int64"}, values={"a": [1, 2]})
    write_shard(storage, NEW, "ee", base=10)
    manifest = merge(storage, [(OLD, 2), (NEW, 2)], FINGERPRINT).manifest
    first, second = manifest.parts
    assert first.sha256 == first.source_sha256
    assert second.sha256 != second.source_sha256
    column = pq.ParquetFile(f"{storage.uri}/{manifest.path(second)}").metadata.row_group(0).column(4)
    assert (column.path_in_schema, column.compression) == ("embedding.list.element", "UNCOMPRESSED")
    assert pq.read_schema(f"{storage.uri}/{manifest.path(second)}").equals(
        pq.read_schema(f"{storage.uri}/{manifest.path(first)}"), check_metadata=True
    )


def test_a_changed_file_is_not_cast_either(storage: Storage, tmp_path: Path) -> None:
    write_shard(storage, OLD, "ee", columns={"a": "int64"}, values={"a": [1, 2]})
    path = tmp_path / write_shard(storage, NEW, "ee", base=10).embeddings.path
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(AccountingError, match=r"g0002-00000/embeddings-1\.parquet: its bytes have changed"):
        merge(storage, [(OLD, 2), (NEW, 2)], FINGERPRINT)


def test_different_dimensions_are_refused(storage: Storage) -> None:
    write_shard(storage, OLD, "ee")
    write_shard(storage, NEW, "ee", dimensions=12)
    with pytest.raises(AccountingError, match="8 in shard g0001-00000, 12 in shard g0002-00000"):
        merge(storage, [(OLD, 2), (NEW, 2)], FINGERPRINT)
