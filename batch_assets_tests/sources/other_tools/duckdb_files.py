"""Parquet files that DuckDB writes, of every type that it has."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

UUID = "'c78595bd-40ca-8443-0837-835d2c494085'::UUID"
VALUES: dict[str, str] = {
    "TINYINT": "'-128'::TINYINT",
    "SMALLINT": "1::SMALLINT",
    "INTEGER": "1",
    "BIGINT": "'-9223372036854775808'::BIGINT",
    "UTINYINT": "255::UTINYINT",
    "USMALLINT": "65535::USMALLINT",
    "UINTEGER": "4294967295::UINTEGER",
    "UBIGINT": "18446744073709551615::UBIGINT",
    "HUGEINT": "123456789012345678901234567890::HUGEINT",  # which it writes as DOUBLE
    "FLOAT": "0.1::FLOAT",
    "DOUBLE": "'nan'::DOUBLE",
    "DECIMAL_4": "1.5::DECIMAL(4, 1)",
    "DECIMAL_18": "1.5::DECIMAL(18, 3)",
    "DECIMAL_38": "1.5::DECIMAL(38, 4)",
    "BOOLEAN": "true",
    "VARCHAR": "''",
    "BLOB": r"'\xff\x00ab'::BLOB",
    "BIT": "'10101'::BIT",
    "UUID": UUID,
    "ENUM": "'a'::ENUM('a', 'b')",
    "JSON": """'{"a": [1, 2]}'::JSON""",
    "DATE": "DATE '0001-01-01'",
    "TIME": "TIME '01:02:03.456789'",
    "TIME_NS": "'01:02:03.123456'::TIME_NS",
    "TIMESTAMP": "TIMESTAMP '9999-12-31 23:59:59'",
    "TIMESTAMP_S": "TIMESTAMP_S '2024-01-02 03:04:05'",
    "TIMESTAMP_NS": "TIMESTAMP_NS '2024-01-02 03:04:05.678901234'",
    "TIMESTAMPTZ": "TIMESTAMPTZ '2024-01-02 03:04:05.678901+02'",
    "INTERVAL": "INTERVAL '14 month 2 days 3.5 seconds'",
    "LIST": "[1, NULL]",
    "LIST_of_UUID": f"[{UUID}]",
    "LIST_of_ENUM": "['a'::ENUM('a', 'b')]",
    "LIST_of_MAP": "[MAP {'k': {'d': DATE '2024-01-01'}}]",
    "STRUCT": f"{{'a': 1, 'b c': 'x', 'U': {UUID}, 'j': '1'::JSON}}",
    "MAP": "MAP {1: [1.5::DECIMAL(4, 1)]}",
    "UNION": "union_value(num := 2)",
    "NULL": "NULL",
}


def _typed(expression: str) -> Callable[[Path], pa.Table]:
    def write(folder: Path) -> pa.Table:
        rows = f"SELECT 'x' AS text, 1 AS id, {expression} AS v UNION ALL SELECT 'y', 2, NULL"
        return written(folder / "a.parquet", rows)

    return write


@functools.cache
def database() -> Any:
    """A database in memory, for all files."""
    import duckdb

    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def written(path: Path, rows: str, options: str = "FORMAT parquet", columns: str = "*") -> pa.Table:
    """A file of these rows, and the columns that DuckDB reads of it."""
    database().execute(f"COPY ({rows}) TO '{path}' ({options})")
    return database().sql(f"SELECT {columns} FROM '{path}'").to_arrow_table()


FILES: dict[str, Callable[[Path], pa.Table]] = {
    **{f"duckdb-{name}": _typed(expression) for name, expression in VALUES.items()},
    # DuckDB itself reads these as microseconds.
    "duckdb-TIMESTAMP_MS": lambda folder: written(
        folder / "a.parquet",
        "SELECT 'x' AS text, TIMESTAMP_MS '2024-01-02 03:04:05.678' AS v",
        columns="text, v::TIMESTAMP_MS AS v",
    ),
    "duckdb-ARRAY": lambda folder: written(
        folder / "a.parquet", "SELECT 'x' AS text, [1.5, 2.5]::FLOAT[2] AS v"
    ),
    "duckdb-version_2": lambda folder: written(
        folder / "a.parquet",
        "SELECT 'x' || n AS text, n AS id, n / 3 AS v FROM range(9) AS numbers(n)",
        "FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, ROW_GROUP_SIZE 4",
    ),
}
