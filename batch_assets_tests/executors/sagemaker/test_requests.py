"""Input objects: every record in exactly one, with its id beside it, neighbours together, small where one failed."""

import csv
import itertools

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.executors.sagemaker.requests import (
    CSV,
    Cut,
    InputObject,
    Lines,
    cut_records,
    data_processing,
)
from batch_assets.rehearsal.sagemaker.records import Processing
from batch_assets_tests.executors.bedrock.builders import records_of

JSON = "application/jsonlines"


def lines(
    content_type: str = JSON, prompt: str = "", input_field: str = "inputs", most_bytes: int = 10**6
) -> Lines:
    return Lines(prompt, content_type, input_field, most_bytes)


def objects(count: int, cut: Cut, ordinals: list[int] | None = None) -> list[InputObject]:
    records = records_of([f"text {ordinal}" for ordinal in range(count)])
    return list(cut_records([records], lines(), cut, ordinals, []))


def test_a_line_of_json() -> None:
    line = lines(prompt="query: ", input_field="text").line(7, 'a "b"\nc\u2028d\x85é')
    assert orjson.loads(line) == {"id": "00000000007", "input": {"text": 'query: a "b"\nc\u2028d\x85é'}}
    # Whatever way a container splits what it is sent, the line is one.
    assert len(line.decode().splitlines()) == 1


def test_a_line_of_csv() -> None:
    line = lines(CSV, prompt="p: ").line(7, 'a,"b"\r\nc\u2028d\n')
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert next(csv.reader([line.decode()])) == ["00000000007", 'p: a,"b" c d']


def test_filters_are_short_enough_and_hold_the_id_back() -> None:
    for content_type, filtered in ((JSON, "$.input"), (CSV, "$[1:]")):
        processing = data_processing(content_type)
        assert all(len(path) <= 63 for path in processing.values())
        assert processing["InputFilter"] == filtered


def test_a_record_larger_than_a_call_is_left_out_with_figures() -> None:
    records = records_of(["short", "x" * 2000, "short"])
    too_long: list[tuple[int, str]] = []
    [found] = cut_records([records], lines(most_bytes=1000), Cut(1, 3, 3, {}), None, too_long)
    assert found.ordinals == [0, 2]
    [(ordinal, why)] = too_long
    assert ordinal == 1
    assert "2,0" in why and "1,000" in why and "max_payload_mb" in why


def test_a_shard_is_cut_evenly_and_rejected_records_leave_their_places() -> None:
    assert [len(found.ordinals) for found in objects(10, Cut(4, 10, 3, {}))] == [3, 2, 3, 2]
    assert [len(found.ordinals) for found in objects(3, Cut(4, 3, 1, {}))] == [1, 1, 1]
    half = objects(10, Cut(4, 20, 5, {}))  # the other ten were rejected
    assert [len(found.ordinals) for found in half] == [5, 5]


def test_a_failed_object_is_cut_until_a_record_is_alone() -> None:
    times = dict.fromkeys(range(1000), 1)
    cut = Cut(4, 1000, 12_500, times)
    assert [len(found.ordinals) for found in objects(1000, cut, list(range(1000)))] == [98] * 10 + [20]
    again = Cut(4, 50, 12_500, dict.fromkeys(range(50), 2))
    assert [len(found.ordinals) for found in objects(50, again, list(range(50)))] == [1] * 50


COUNT = 40


@settings(max_examples=60, deadline=None)
@given(
    wanted=st.one_of(st.none(), st.sets(st.integers(0, COUNT - 1))),
    levels=st.dictionaries(st.integers(0, COUNT - 1), st.integers(1, 2)),
    cuts=st.integers(1, 8),
    size=st.integers(1, 600),
)
def test_every_record_is_in_exactly_one_object(
    wanted: set[int] | None, levels: dict[int, int], cuts: int, size: int
) -> None:
    ordinals = None if wanted is None else sorted(wanted)
    cut = Cut(cuts, COUNT if ordinals is None else len(ordinals), size, levels)
    found = objects(COUNT, cut, ordinals)
    put = list(itertools.chain.from_iterable(one.ordinals for one in found))
    assert put == (list(range(COUNT)) if ordinals is None else ordinals)
    for one in found:
        assert [orjson.loads(line)["id"] for line in one.lines] == [f"{o:011d}" for o in one.ordinals]
        # None shares an object with a record that had another number of failures, and all have their size.
        [level] = {levels.get(ordinal, 0) for ordinal in one.ordinals}
        assert 1 <= len(one.ordinals) <= max(cut.most(level), 1)
    if not levels:
        assert len(found) <= cuts


@pytest.mark.parametrize("content_type", [JSON, CSV])
def test_the_text_is_sent_and_the_id_is_not(content_type: str) -> None:
    line = lines(content_type).line(3, "a, b").decode().rstrip("\n")
    sent = Processing(data_processing(content_type), content_type).sent(line)
    assert "00000000003" not in sent
    assert "a, b" in sent
