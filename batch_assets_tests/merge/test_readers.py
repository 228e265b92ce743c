"""The folder of a published version's rows is a dataset to whoever reads Parquet: the rows and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.dataset
import pytest

from batch_assets.merge.base import Manifest
from batch_assets.merge.parquet import Grouping, merge
from batch_assets.merge.publishing import publish
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import DIMENSIONS, unit_vectors, write_shard
from batch_assets_tests.hugging_face import keep_to_folder

ROWS = [0, 1, 3, 200, 201, 202, 203, 204, 205]
TOPICS = ["news", "test", None]


def by_polars(data: str) -> pl.DataFrame:
    return pl.read_parquet(data)


def by_duckdb(data: str) -> pl.DataFrame:
    import duckdb

    return duckdb.sql(f"select * from read_parquet('{data}**/*.parquet')").pl()


def by_arrow(data: str) -> Any:
    return pl.from_arrow(pyarrow.dataset.dataset(data).to_table())


def by_pandas(data: str) -> pl.DataFrame:
    import pandas as pd

    return pl.from_pandas(pd.read_parquet(data))


def by_hugging_face(data: str) -> Any:
    import datasets

    found = datasets.load_dataset("parquet", data_files=f"{data}**/*.parquet", split="train")
    return pl.from_arrow(found.with_format("arrow")[:])


READERS: list[Callable[[str], pl.DataFrame]] = [by_polars, by_duckdb, by_arrow, by_pandas, by_hugging_face]
readers = pytest.mark.parametrize("read", READERS)


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    keep_to_folder(tmp_path / "hugging face", monkeypatch)
    return open_storage(str(tmp_path / "root"))


def publish_three(storage: Storage, grouping: Grouping | None = None) -> Manifest:
    """Shards with every kind of outcome, one of them without a row."""
    shards: list[tuple[str, int]] = []
    for number, kinds in enumerate(["eeref", "rrr", "eeeeee"]):
        valid = len(kinds.replace("r", ""))
        values = {"topic": (TOPICS * valid)[:valid]}
        shards.append((f"g0001-{number:05d}", len(kinds)))
        write_shard(
            storage, shards[-1][0], kinds, base=100 * number, columns={"topic": "string"}, values=values
        )
    result = merge(storage, shards, "f" * 16, grouping=grouping)
    assert publish(storage, result.manifest.version, result.expected_current)
    return result.manifest


@readers
def test_the_folder_has_the_rows_in_order_and_nothing_else(
    storage: Storage, read: Callable[[str], pl.DataFrame]
) -> None:
    manifest = publish_three(storage)
    rows = read(f"{storage.uri}/{manifest.data_folder}/")
    assert rows.columns == [
        "record_id", "source_file", "source_row", "topic", "embedding", "token_count",
    ]  # fmt: skip
    assert rows["source_row"].to_list() == ROWS
    assert rows["topic"].to_list() == ["news", "test", None, *TOPICS, *TOPICS]
    vectors = rows["embedding"].cast(pl.Array(pl.Float32, DIMENSIONS)).to_numpy()
    assert (vectors == unit_vectors(ROWS)).all()


@readers
def test_the_folder_of_groups_has_the_rows_of_all(
    storage: Storage, read: Callable[[str], pl.DataFrame]
) -> None:
    manifest = publish_three(storage, Grouping("topic"))
    data = f"{storage.uri}/{manifest.data_folder}/"
    rows = read(data)
    assert "group" not in rows.columns
    assert sorted(rows["source_row"].to_list()) == ROWS
    [news] = [group.folder for group in manifest.groups if group.name == "news"]
    assert read(f"{storage.uri}/merged/{manifest.version}/{news}/")["source_row"].to_list() == [0, 200, 203]
