"""JSON Lines and CSV that Python, pandas, Polars, DuckDB and Hugging Face datasets write.

The tools read dates and the like out of texts, each in its own way: of JSON the reference is Python's `json`,
of CSV the tool itself, told to leave every cell as it is.
"""

import csv
import datetime as dt
import gzip
import json
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from batch_assets_tests.sources.other_tools.duckdb_files import UUID, database
from batch_assets_tests.sources.other_tools.pandas_files import data_set

OBJECTS: list[dict[str, Any]] = [
    {"text": "x", "big": 2**70, "low": -(2**63), "u": 2**64 - 1, "f": 1e308, "nest": {"a": [1, {"b": None}]}, "": {}},
    {"text": "é 😀\u2028\x7f\\n", "big": 1.5, "mixed": "s", "f": 2, "yes": True, "": [], "a.b": [], "none": None},
    {"text": "z", "mixed": 1, "yes": False, "A": "upper", "deep": [[[[[]]]]], "zero": -0.0, "small": 5e-324},
]  # fmt: skip
ROWS = [["text", "n", "s", "empty"], ["x", 1, 'a "quoted", cell', ""], ["ü", -2.5, "two\nlines", ""]]
FRAME = {
    "text": ["x", "ü"],
    "i": [1, 2],
    "f": [0.5, None],
    "t": [dt.datetime(2020, 1, 1, 1, 2, 3), None],
    "s": ['a\n"b"', None],
    "b": [True, False],
    "p": [Decimal("1.50"), None],
}
DUCKDB_ROWS = (
    "SELECT 'x' AS text, 1 AS i, 12345678901234567890123456789::HUGEINT AS h, 0.5::FLOAT AS f, DATE '2020-01-01' AS d,"
    " [1, NULL] AS l, {'a': 1} AS s, '\\xff'::BLOB AS b, INTERVAL 1 DAY AS iv, 1.50::DECIMAL(4, 2) AS p,"
    f" MAP {{'k': 1}} AS m, 'a\"b,c' AS q, '' AS e, {UUID} AS u"
    " UNION ALL SELECT 'ü'" + ", NULL" * 13
)


def _python(path: Path, *, ascii_only: bool) -> None:
    lines = [json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in OBJECTS]
    path.write_text("".join(lines), encoding="utf-8")


def _python_gzip(path: Path) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in OBJECTS)


def _pandas_json(path: Path, **options: Any) -> None:
    import pandas as pd

    with warnings.catch_warnings(action="ignore"):  # of what the next version does with dates
        pd.DataFrame(FRAME).to_json(path, orient="records", lines=True, **options)


def _polars_json(path: Path) -> None:
    columns = {
        "d": [dt.date(2020, 1, 1), None],
        "e": [dt.timedelta(1), None],
        "l": [[1], None],
        "r": [{"a": 1}, None],
        "u": pl.Series([2**64 - 1, 1], dtype=pl.UInt64),
        "c": pl.Series(["a", None], dtype=pl.Categorical),
    }
    pl.DataFrame({**FRAME, **columns}).write_ndjson(path)


def _duckdb(path: Path, options: str) -> None:
    database().execute(f"COPY ({DUCKDB_ROWS}) TO '{path}' ({options})")


def _hugging_face(path: Path) -> None:
    data_set().remove_columns("bytes").to_json(path)


# Name → the file's name, what writes it.
JSON: dict[str, tuple[str, Callable[[Path], object]]] = {
    "python": ("a.jsonl", lambda path: _python(path, ascii_only=False)),
    "python-ascii": ("a.json", lambda path: _python(path, ascii_only=True)),
    "python-gzip": ("a.jsonl.gz", _python_gzip),
    "pandas": ("a.jsonl", _pandas_json),
    "pandas-iso": ("a.jsonl", lambda path: _pandas_json(path, date_format="iso", force_ascii=False)),
    "pandas-gzip": ("a.jsonl.gz", _pandas_json),
    "pandas-zstd": ("a.jsonl.zst", _pandas_json),
    "polars": ("a.ndjson", _polars_json),
    "duckdb": ("a.json", lambda path: _duckdb(path, "FORMAT json")),
    "duckdb-gzip": ("a.json.gz", lambda path: _duckdb(path, "FORMAT json, COMPRESSION gzip")),
    "duckdb-zstd": ("a.json.zst", lambda path: _duckdb(path, "FORMAT json, COMPRESSION zstd")),
    "datasets": ("a.jsonl", _hugging_face),
}


def _python_csv(path: Path, **options: Any) -> pa.Table:
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        csv.writer(file, **options).writerows(ROWS)
    columns = zip(*([str(cell) for cell in row] for row in ROWS[1:]), strict=True)
    quoted = options.get("quoting") == csv.QUOTE_ALL
    cells = [[None if cell == "" and not quoted else cell for cell in column] for column in columns]
    return pa.table(cells, names=ROWS[0])


def _pandas_csv(path: Path, **options: Any) -> pa.Table:
    import pandas as pd

    pd.DataFrame(FRAME).to_csv(path, index=False, **options)
    own = pd.read_csv(path, sep=options.get("sep", ","), dtype="string")
    return pa.Table.from_pandas(own)


def _polars_csv(path: Path, **options: Any) -> pa.Table:
    frame = pl.DataFrame({**FRAME, "e": ["", None]})
    frame.write_csv(path, **options)
    return pl.read_csv(path, infer_schema=False, separator=options.get("separator", ",")).to_arrow()


def _duckdb_csv(path: Path, options: str) -> pa.Table:
    _duckdb(path, options)
    return (
        database()
        .sql(f"FROM read_csv('{path}', all_varchar = true, allow_quoted_nulls = false)")
        .to_arrow_table()
    )


def _datasets_csv(path: Path) -> pa.Table:
    import pandas as pd

    data_set().remove_columns("bytes").to_csv(path)
    return pa.Table.from_pandas(pd.read_csv(path, dtype="string"))


CSV: dict[str, tuple[str, Callable[[Path], pa.Table]]] = {
    "python": ("a.csv", _python_csv),
    "python-quoted": ("a.csv", lambda path: _python_csv(path, quoting=csv.QUOTE_ALL, lineterminator="\n")),
    "python-excel": ("a.csv", lambda path: _python_csv(path, encoding="utf-8-sig")),
    "python-tabs": ("a.tsv", lambda path: _python_csv(path, dialect="excel-tab")),
    "pandas": ("a.csv", _pandas_csv),
    "pandas-tabs": ("a.tsv", lambda path: _pandas_csv(path, sep="\t")),
    "pandas-gzip": ("a.csv.gz", _pandas_csv),
    "pandas-zstd": ("a.csv.zst", _pandas_csv),
    "polars": ("a.csv", _polars_csv),
    "polars-tabs": ("a.tsv", lambda path: _polars_csv(path, separator="\t")),
    "polars-bom": ("a.csv", lambda path: _polars_csv(path, include_bom=True, line_terminator="\r\n")),
    "duckdb": ("a.csv", lambda path: _duckdb_csv(path, "FORMAT csv")),
    "duckdb-quoted": ("a.csv.gz", lambda path: _duckdb_csv(path, "FORMAT csv, FORCE_QUOTE *")),
    "datasets": ("a.csv", _datasets_csv),
}
