"""Parquet files that pandas and Hugging Face datasets write."""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa


def columns(name: str) -> dict[str, Any]:
    """Columns of a frame, by what is special about them."""
    import numpy as np
    import pandas as pd

    found: dict[str, Callable[[], dict[str, Any]]] = {
        "floats_for_integers": lambda: {"v": [1, None], "nan": [np.nan, 1.5], "inf": [np.inf, -np.inf]},
        "numpy": lambda: {"f": np.array([0.1, 2], "float32"), "u": np.array([0, 2**63], "uint64")},
        "nullable": lambda: {
            "i": pd.array([1, None], "Int64"),
            "b": pd.array([True, None], "boolean"),
            "f": pd.array([1.5, None], "Float32"),
            "s": pd.array(["a", None], "string"),
            "u": pd.array([1, None], "UInt8"),
        },
        "categorical": lambda: {
            "c": pd.Categorical(["a", None], categories=["a", "b"]),
            "i": pd.Categorical([3, 4]),
            "t": pd.Categorical(pd.to_datetime(["2020", "2021"])),
        },
        "arrow": lambda: {
            "d": pd.Series([dt.date(2020, 1, 1), None], dtype=pd.ArrowDtype(pa.date32())),
            "t": pd.Series([1, None], dtype=pd.ArrowDtype(pa.timestamp("s"))),
            "p": pd.Series([Decimal("1.5"), None], dtype=pd.ArrowDtype(pa.decimal128(9, 2))),
        },
        "times": lambda: {
            "t": pd.to_datetime(["2020-01-01 01:02:03.123456789", None]),
            "z": pd.to_datetime(["2020", "2021"]).tz_localize("Europe/Paris"),
            "d": pd.to_timedelta([1, None], unit="h"),
        },
        "extensions": lambda: {
            "p": pd.period_range("2020-01", periods=2, freq="M"),
            "i": pd.interval_range(0, 2),
        },
        "objects": lambda: {
            "d": [{"a": 1.5}, {"b": "z"}],
            "l": [["a"], None],
            "n": [np.arange(2), np.arange(3)],
            "b": [b"\xff", b"a"],
            "p": [Decimal("1.5"), None],
            "t": [dt.time(1, 2), None],
            "date": [dt.date(2020, 1, 1), None],
        },
        "names": lambda: {"": [1, 2], "a b": [3, 4], "ü.x": [5, 6], "\t'\"": [7, 8]},
    }
    return found[name]()


def _frame(name: str) -> Callable[[Path], pa.Table]:
    backend = {"dtype_backend": "pyarrow"} if name == "arrow" else {}
    return lambda folder: _written(folder, columns(name), reading=backend)


def _written(
    folder: Path,
    values: dict[str, Any],
    index: Any = None,
    reading: dict[str, Any] | None = None,
    **options: Any,
) -> pa.Table:
    import pandas as pd

    frame = pd.DataFrame({"text": ["x", "ü"], **values})
    if index is not None:
        frame.index = index
    frame.to_parquet(folder / "a.parquet", **options)
    return pa.Table.from_pandas(pd.read_parquet(folder / "a.parquet", **reading or {}))


def named_index(folder: Path) -> pa.Table:
    """The index is a column like any other, and may be the id."""
    import pandas as pd

    return _written(folder, {}, pd.Index(["one", "two"], name="id"))


def unnamed_index(folder: Path) -> pa.Table:
    """It becomes a column `__index_level_0__`."""
    return _written(folder, {}, ["one", "two"])


def indexes(folder: Path) -> pa.Table:
    """One of several, without a name: `__index_level_1__`."""
    import pandas as pd

    return _written(folder, {}, pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["l", None]))


def range_index(folder: Path) -> pa.Table:
    """A range is no column, but a note in the footer."""
    import pandas as pd

    own = _written(folder, {}, pd.RangeIndex(10, 12, name="r"))
    assert own.column_names == ["text"]
    return own


def milliseconds(folder: Path) -> pa.Table:
    """Timestamps are cut by pandas."""
    times = {"t": columns("times")["t"]}
    return _written(folder, times, coerce_timestamps="ms", allow_truncated_timestamps=True)


def int96(folder: Path) -> pa.Table:
    """Nanoseconds stay."""
    return _written(folder, {"t": columns("times")["t"]}, use_deprecated_int96_timestamps=True)


def features() -> dict[str, Any]:
    """Columns of Hugging Face datasets, with their features."""
    from datasets import Array2D, ClassLabel, List, Value

    return {
        "text": (["x", "y"], Value("string")),
        "label": ([0, 1], ClassLabel(names=["no", "yes"])),
        "vector": ([[1.0, 2.0], [3.0, 4.0]], List(Value("float32"), length=2)),
        "words": ([["a"], []], List(Value("large_string"))),
        "record": ([{"a": 1}, {"a": None}], {"a": Value("int8")}),
        "time": ([dt.datetime(2020, 1, 1), None], Value("timestamp[s]")),
        "price": ([Decimal("1.5"), None], Value("decimal128(9, 2)")),
        "matrix": ([[[1, 2], [3, 4]]] * 2, Array2D((2, 2), "int8")),
        "bytes": ([b"\xff", None], Value("large_binary")),
    }


def data_set() -> Any:
    """A data set of Hugging Face."""
    import datasets

    datasets.disable_progress_bars()
    values = {name: column for name, (column, _) in features().items()}
    schema = datasets.Features({name: feature for name, (_, feature) in features().items()})
    return datasets.Dataset.from_dict(values, features=schema)


def hugging_face(folder: Path) -> pa.Table:
    """A data set by `to_parquet`, read by `from_parquet`."""
    import datasets

    data_set().to_parquet(folder / "a.parquet")
    own = datasets.Dataset.from_parquet(str(folder / "a.parquet"), cache_dir=str(folder.parent / "cache"))
    return own.data.table.combine_chunks()


FRAMES = (
    "floats_for_integers", "numpy", "nullable", "categorical", "arrow", "times", "extensions", "objects", "names"
)  # fmt: skip
FILES: dict[str, Callable[[Path], pa.Table]] = {
    **{f"pandas-{name}": _frame(name) for name in FRAMES},
    **{
        f"pandas-{write.__name__}": write
        for write in (named_index, unnamed_index, indexes, range_index, milliseconds, int96)
    },
    "datasets-parquet": hugging_face,
}
