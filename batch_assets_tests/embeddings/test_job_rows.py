"""Rows of a job: told in any order and twice, kept between attempts, joined to records."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.job_states import RowCounts
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.shard_writer import ShardWriter
from batch_assets.errors import AccountingError
from batch_assets.sources.base import Records, Rejection
from batch_assets.storage import open_storage

DIMENSIONS = 4
PATH = "shards/g0001-00000/attempts/1/rows.parquet"


def make_records(ordinals: range | list[int], rejected: list[int] | None = None) -> Records:
    ids = [f"id-{ordinal}" for ordinal in ordinals]
    count = len(ids)
    return Records(
        ordinals=list(ordinals),
        record_ids=ids,
        source_files=["part.jsonl"] * count,
        source_rows=list(ordinals),
        texts=["text"] * count,
        columns=pa.RecordBatch.from_pylist([{}] * count),
        rejections=[
            Rejection(ordinal, "", "part.jsonl", ordinal, "no_text", "") for ordinal in rejected or []
        ],
    )


def vector(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)
    return values / np.linalg.norm(values)


def test_vectors_come_back_by_ordinal_whatever_their_order() -> None:
    order = np.random.default_rng(0).permutation(5000)
    vectors = np.random.default_rng(1).standard_normal((5000, DIMENSIONS)).astype(np.float32)
    with JobRows(5000) as rows:
        for start in range(0, 5000, 300):
            part = order[start : start + 300]
            rows.embed_many(part, vectors[part], part % 7)
        found = rows.outcomes(make_records(range(1000, 3000)))
    assert np.array_equal(found.vectors, vectors[1000:3000])
    assert found.token_counts.tolist() == [ordinal % 7 for ordinal in range(1000, 3000)]
    assert found.failures == []


def test_the_first_answer_stays() -> None:
    with JobRows(3) as rows:
        assert rows.embed(1, vector(1), 5)
        assert not rows.embed(1, vector(2).tobytes(), 6)
        taken = rows.embed_many(
            [1, 2, 2, 0], np.stack([vector(3), vector(4), vector(5), vector(6)]), [1, 2, 3, 4]
        )
        found = rows.outcomes(make_records(range(3)))
    assert taken.tolist() == [1, 3]
    assert np.array_equal(found.vectors, np.stack([vector(6), vector(1), vector(4)]))
    assert found.token_counts.tolist() == [4, 5, 2]


@pytest.mark.parametrize("first", ["fail", "again"])
def test_an_answer_stands_against_failures_before_and_after(first: str) -> None:
    with JobRows(1) as rows:
        getattr(rows, first)(0, "service_503", "try again")
        assert rows.embed(0, vector(0), 1)
        assert not rows.fail(0, "service_400", "no")
        assert not rows.again(0, "service_503", "again")
        assert rows.counts == RowCounts(embedded=1, failed=0, again=0, unknown=0)
        assert rows.outcomes(make_records([0])).failures == []


def test_failures_say_why_and_whether_to_try_again() -> None:
    with JobRows(4) as rows:
        rows.again(0, "service_429", "slow down")
        rows.again(0, "service_503", "unavailable")
        rows.again(1, "service_429", "slow down")
        assert rows.fail(1, "service_400", "malformed", attempts=2)
        assert not rows.again(1, "service_429", "slow down")
        assert rows.ordinals_again().tolist() == [0]
        assert rows.ordinals_again("service_503").tolist() == [0]
        assert rows.ordinals_again("service_429").tolist() == []
        assert rows.unknown([1, 2]).tolist() == [2]
        found = {failure.row: failure for failure in rows.outcomes(make_records(range(3))).failures}
    assert (found[0].code, found[0].message, found[0].retryable) == ("service_503", "unavailable", True)
    assert (found[1].code, found[1].attempts, found[1].retryable) == ("service_400", 2, False)
    assert (found[2].code, found[2].retryable) == ("missing_result", True)


def test_giving_up_ends_everything() -> None:
    with JobRows(3) as rows:
        rows.again(0, "service_503", "unavailable")
        rows.embed(1, vector(1), 1)
        rows.give_up(3)
        found = rows.outcomes(make_records(range(3)))
    assert found.rows.tolist() == [1]
    assert [(one.row, one.code, one.attempts, one.retryable) for one in found.failures] == [
        (0, "service_503", 3, False),
        (2, "missing_result", 3, False),
    ]


def test_what_was_asked_again_is_open_again() -> None:
    with JobRows(3) as rows:
        rows.again(0, "service_503", "unavailable")
        rows.fail(1, "service_400", "no")
        rows.embed(2, vector(2), 1)
        assert rows.reasons_again() == {"service_503": 1}
        rows.forget(np.arange(3))
        assert rows.counts == RowCounts(embedded=1, failed=1, again=0, unknown=1)


def test_rows_survive_between_attempts(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    count = 5000
    vectors = np.random.default_rng(1).standard_normal((count, DIMENSIONS)).astype(np.float32)
    with JobRows(count) as rows:
        good = np.array([ordinal for ordinal in range(count) if ordinal % 5])
        rows.embed_many(good[::-1], vectors[good[::-1]], good[::-1])
        rows.fail(0, "service_400", "malformed", attempts=2)
        rows.again(5, "too_long", "Too many input tokens")
        saved = rows.save(storage, PATH)
    table = pq.read_table(tmp_path / PATH)
    assert saved.rows == len(table) == len(good) + 2
    assert table["ordinal"].to_pylist() == sorted([0, 5, *good.tolist()])
    with JobRows(count) as rows:
        rows.embed(5, vector(5), 9)
        rows.embed(1, vector(9), 9)  # a newer answer than the file's
        rows.load(storage, PATH)
        found = rows.outcomes(make_records(range(12)))
        assert rows.counts == RowCounts(
            embedded=len(good) + 1, failed=1, again=0, unknown=count - len(good) - 2
        )
    assert found.rows.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]
    assert np.array_equal(found.vectors[0], vector(9))
    assert np.array_equal(found.vectors[1], vectors[2])
    assert found.token_counts[1] == 2
    assert (found.failures[0].row, found.failures[0].attempts) == (0, 2)


def test_answers_survive_between_attempts(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    with JobRows(3) as rows:
        assert rows.respond(2, "zwei\n\ud800", 7, 3)
        assert not rows.respond(2, "drei", 7, 3)
        rows.respond(0, "", 1, 0)
        rows.again(1, "service_429", "slow down")
        rows.save(storage, PATH)
    with JobRows(3) as rows:
        rows.load(storage, PATH)
        rows.respond(1, "eins", 2, 2)
        found = rows.outcomes(make_records(range(3)))
    assert found.responses == ["", "eins", "zwei\n?"]
    assert found.token_counts.tolist() == [1, 2, 7]
    assert found.output_tokens is not None and found.output_tokens.tolist() == [0, 2, 3]
    assert found.vectors.shape == (3, 0)


def test_rows_without_any_answer_survive(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    with JobRows(2) as rows:
        rows.again(1, "service_429", "slow down")
        rows.save(storage, PATH)
    with JobRows(2) as rows:
        rows.load(storage, PATH)
        assert rows.counts == RowCounts(embedded=0, failed=0, again=1, unknown=1)


def test_a_file_of_another_shard_is_refused(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    with JobRows(9) as rows:
        rows.embed(8, vector(8), 1)
        rows.save(storage, PATH)
    with JobRows(8) as rows, pytest.raises(AccountingError, match="no rows of this shard"):
        rows.load(storage, PATH)
    pq.write_table(pa.table({"ordinal": [0]}), tmp_path / PATH)
    with JobRows(9) as rows, pytest.raises(AccountingError, match="has no column"):
        rows.load(storage, PATH)


def test_wrong_rows_are_refused() -> None:
    with JobRows(2, DIMENSIONS) as rows:
        with pytest.raises(ValueError, match="dimensions"):
            rows.embed(0, np.zeros(3, np.float32), 1)
        with pytest.raises(ValueError, match="ordinal"):
            rows.embed(2, vector(0), 1)
        with pytest.raises(ValueError, match="ordinal"):
            rows.fail(-1, "code", "message")
        with pytest.raises(ValueError, match="no answers"):
            rows.respond(0, "text", 1, 1)


EVENTS = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from(["embed", "fail", "again", "save and load"])), max_size=40
)


@settings(max_examples=40, deadline=None)
@given(EVENTS)
def test_whatever_is_told_every_record_has_exactly_one_end(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, str]]
) -> None:
    storage = open_storage(str(tmp_path_factory.mktemp("rows")))
    rows = JobRows(8)
    firsts: dict[int, int] = {}
    failed: set[int] = set()
    for number, (ordinal, event) in enumerate(events):
        if event == "embed":
            rows.embed(ordinal, vector(number), 1)
            firsts.setdefault(ordinal, number)
        elif event == "fail":
            rows.fail(ordinal, "failed", "")
            failed.add(ordinal)
        elif event == "again":
            rows.again(ordinal, "again", "")
        else:
            rows.save(storage, PATH)
            rows.close()
            rows = JobRows(8)
            rows.load(storage, PATH)
    records = make_records([0, 1, 2, 4, 5, 6, 7], rejected=[3])
    found = rows.outcomes(records)
    expected = [row for row, ordinal in enumerate(records.ordinals) if ordinal in firsts]
    assert found.rows.tolist() == expected
    for place, row in enumerate(expected):
        assert np.array_equal(found.vectors[place], vector(firsts[records.ordinals[row]]))
    for failure in found.failures:
        assert (failure.code == "failed") == (records.ordinals[failure.row] in failed)
        assert failure.retryable == (failure.code != "failed")
    write_shard(storage, found)
    rows.close()


def write_shard(storage: object, outcomes: Outcomes) -> None:
    """The writer itself checks that every record has exactly one end."""
    writer = ShardWriter(storage, "g0001-00000", 1, {}, "float32")  # type: ignore[arg-type]
    writer.write(outcomes)
    files = writer.close(DIMENSIONS)
    assert files.embedded + files.failed + files.rejected == 8
