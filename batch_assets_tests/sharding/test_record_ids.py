"""Ids that occur more than once, and records without one: counted when planned, refused where they are to be unique."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.sources.record_ids import IdCount
from batch_assets_tests.sharding.planning import plan, write_lines

# (name, text) of each record: `a` three times, `c` twice, of which one is rejected; two without a name.
RECORDS = [("a", "1"), ("b", "2"), (None, "3"), ("a", "4"), ("c", "5"), ("c", ""), (None, "7"), ("a", "8")]
COUNTED = IdCount(duplicates=2, records=5, missing=2)


def json_line(name: str | None, text: str) -> str:
    return f'{{"text": "{text}"}}' if name is None else f'{{"name": "{name}", "text": "{text}"}}'


def write_source(folder: Path, kind: str, records: list[tuple[str | None, str]], name: str = "a") -> Path:
    """One file of `kind` in `folder`."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}{kind}"
    names, texts = [one for one, _ in records], [text for _, text in records]
    if kind == ".parquet":
        table = pa.table({"name": pa.array(names, pa.string()), "text": texts})
        pq.write_table(table, path, row_group_size=3)
    elif kind == ".csv":
        write_lines(path, ["name,text", *(f'{one or ""},"{text}"' for one, text in records)])
    else:
        write_lines(path, [json_line(*records[0]), "", " ", *(json_line(*one) for one in records[1:])])
        if kind == ".jsonl.zst":
            import zstandard

            path.write_bytes(zstandard.compress(path.read_bytes()))
    return folder


KINDS = pytest.mark.parametrize("kind", [".jsonl", ".jsonl.zst", ".csv", ".parquet"])


@KINDS
def test_repeated_and_missing_ids_are_counted(tmp_path: Path, kind: str) -> None:
    write_source(tmp_path / "src", kind, RECORDS[:4])
    write_source(tmp_path / "src", kind, RECORDS[4:], "b")
    planned = plan(tmp_path / "src", tmp_path / "root", id_column="name")
    assert planned.result.ids == COUNTED
    assert planned.result.ids.describe() == [
        "2 ids occur more than once (5 records)",
        "2 records have no id and are named by their place",
    ]


@KINDS
def test_only_planned_records_are_counted(tmp_path: Path, kind: str) -> None:
    write_source(tmp_path / "src", kind, RECORDS)
    first = plan(tmp_path / "src", tmp_path / "root", id_column="name", limit=4)
    assert first.result.ids == IdCount(duplicates=1, records=2, missing=1)
    rest = plan(tmp_path / "src", tmp_path / "root", id_column="name")
    assert rest.result.ids == IdCount(duplicates=1, records=2, missing=1)


def test_without_an_id_column_nothing_is_counted(tmp_path: Path) -> None:
    write_source(tmp_path / "src", ".jsonl", RECORDS)
    assert plan(tmp_path / "src", tmp_path / "root").result.ids == IdCount()


def test_lines_that_are_no_records_have_no_missing_id(tmp_path: Path) -> None:
    lines = ['{"text": "x", "name": "a"}', "bad", "7", '{"text": "' + "x" * 3_000_000 + '"}', '{"name": "b"}']
    write_lines(tmp_path / "src/a.jsonl", lines)
    planned = plan(tmp_path / "src", tmp_path / "root", {"max_record_bytes": 1000}, id_column="name")
    assert planned.result.ids == IdCount()


def test_a_file_without_the_column_has_records_without_id(tmp_path: Path) -> None:
    write_source(tmp_path / "src", ".parquet", [("a", "1")])
    pq.write_table(pa.table({"text": ["x"] * 5}), tmp_path / "src/b.parquet")
    planned = plan(tmp_path / "src", tmp_path / "root", id_column="name")
    assert planned.result.ids == IdCount(missing=5)


def test_of_parquet_only_the_ids_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from batch_assets.sources import parquet

    asked: list[list[str]] = []
    batches = parquet.batches
    monkeypatch.setattr(parquet, "batches", lambda *args: asked.append(args[2]) or batches(*args))
    write_source(tmp_path / "src", ".parquet", RECORDS)
    plan(tmp_path / "src", tmp_path / "root", id_column="name", ids="unique", limit=2)
    assert asked == [["name"]]


@KINDS
@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [("x", "1"), ("y", "2"), ("x", "3")],
            "1 ids occur more than once (2 records): 'x' in {0} row 0 and {0} row {1};",
        ),
        (
            [("x", "1"), ("y", "2"), (None, "3")],
            "1 records have no id and are named by their place: none in {0} row {1};",
        ),
    ],
)
def test_ids_that_are_to_be_unique_are_refused_with_examples(
    tmp_path: Path, kind: str, records: list[tuple[str | None, str]], message: str
) -> None:
    write_source(tmp_path / "src", kind, records)
    row = 4 if kind.startswith(".jsonl") else 2  # two blank lines
    with pytest.raises(ConfigurationError) as caught:
        plan(tmp_path / "src", tmp_path / "root", id_column="name", ids="unique")
    told = message.format(f"a{kind}", row)
    assert str(caught.value).startswith(f"source.ids: unique, but {told} mend the source")


@KINDS
def test_rejected_records_share_no_id(tmp_path: Path, kind: str) -> None:
    write_source(tmp_path / "src", kind, [("x", "1"), ("x", ""), (None, " ")])
    planned = plan(tmp_path / "src", tmp_path / "root", id_column="name", ids="unique")
    assert planned.ids() == ["x"]


def test_few_examples_are_shown_of_many(tmp_path: Path) -> None:
    write_source(tmp_path / "src", ".jsonl", [(f"n{n % 60}" * 100, "x") for n in range(120)])
    with pytest.raises(ConfigurationError, match=r"60 ids occur more than once \(120 records\)") as caught:
        plan(tmp_path / "src", tmp_path / "root", id_column="name", ids="unique")
    assert str(caught.value).count("a.jsonl row") == 6
    assert len(str(caught.value)) < 600


def test_unique_ids_need_a_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ids: unique needs id_column"):
        plan(tmp_path / "src", tmp_path / "root", ids="unique")


@KINDS
def test_records_that_a_replaced_plan_takes_over_are_counted(tmp_path: Path, kind: str) -> None:
    source = write_source(tmp_path / "src", kind, [("1", "a"), ("2", "b")])
    write_source(source, kind, [("3", "c")], "b")
    plan(source, tmp_path / "root", id_column="name", ids="unique")
    write_source(source, kind, [("1", "longer than before")], "b")
    with pytest.raises(
        ConfigurationError, match=r"source.ids: unique, but 1 ids occur more than once \(2 records\)"
    ):
        plan(source, tmp_path / "root", replace=True, id_column="name", ids="unique")
