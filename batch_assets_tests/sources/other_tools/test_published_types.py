"""The types of columns as other tools find them in what was published."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets_tests.sharding.planning import plan
from batch_assets_tests.sources.other_tools.arrow_files import ID, TEXT, TYPES
from batch_assets_tests.sources.other_tools.documented import documented_type, documented_value
from batch_assets_tests.sources.other_tools.duckdb_files import database
from batch_assets_tests.sources.other_tools.publishing import published

# What is no type of the tool's own.
IN_DUCKDB = {
    "halffloat": "FLOAT",
    "timestamp[s]": "TIMESTAMP",
    "timestamp[ms]": "TIMESTAMP",
    **{f"duration[{unit}]": "BIGINT" for unit in ("s", "ms", "us", "ns")},
    "fixed_size_list": "FLOAT[]",
    "uuid": "VARCHAR",
    "decimal256": "VARCHAR",
    "timestamp_zone": "TIMESTAMP WITH TIME ZONE",
    "map": "MAP(VARCHAR, UTINYINT)",
    "list_of_date64": "DATE[]",
    "deep": "STRUCT(m MAP(VARCHAR, STRUCT(x SMALLINT, y DATE)[]))[]",
}


def test_polars_duckdb_and_pandas_read_every_type(tmp_path: Path) -> None:
    import pandas as pd

    source = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": TEXT, "id": ID, **TYPES}), source)
    own = pq.read_table(source)
    path = published(plan(source, tmp_path / "root", id_column="id"))

    found = pq.read_table(path)
    assert found.column("record_id").to_pylist() == ["7", "8", "9"]
    for name in own.column_names:
        assert found.schema.field(name).type == documented_type(own.schema.field(name).type), name
        values = documented_value(found.column(name).to_pylist())
        assert values == documented_value(own.column(name).to_pylist()), name

    frame = pl.read_parquet(path)
    assert frame.schema["duration[s]"] == pl.Duration("ms")  # Polars has no seconds
    for name in own.column_names:
        assert frame.schema[name] == pl.Series(name, found.column(name)).dtype, name
    assert frame["embedding"].dtype == pl.Array(pl.Float32, 8)

    table = database().sql(f"FROM '{path}'")
    types = dict(zip(table.columns, map(str, table.types), strict=True))
    assert {name: types[name] for name in IN_DUCKDB} == IN_DUCKDB
    rows = table.to_arrow_table()
    for name in ("int8", "uint64", "date32", "decimal128", "list_of_uuids", "map", "deep", "timestamp_far"):
        values = documented_value(rows.column(name).to_pylist())
        assert values == documented_value(found.column(name).to_pylist()), name

    assert pd.read_parquet(path).shape == (3, len(found.column_names))
