"""Result objects: every line is sorted, a bad one costs only itself, every record has exactly one end."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.executors.aws import sorting
from batch_assets.executors.aws.results import Tally
from batch_assets.executors.sagemaker.answers import AnswerFormat
from batch_assets.executors.sagemaker.results import read_results
from batch_assets.executors.service_jobs import UnexpectedOutput
from batch_assets.storage import open_storage
from batch_assets_tests.executors.bedrock.builders import records_of, unit

FILE, WIDTH = "results/part.jsonl.out", 16


def line(ordinal: int | str, output: Any = None) -> bytes:
    """A result line; without `output`, a good one."""
    if isinstance(ordinal, int) and output is None:
        output = unit(ordinal, WIDTH)
    name = f"{ordinal:011d}" if isinstance(ordinal, int) else ordinal
    return orjson.dumps({"id": name, "SageMakerOutput": output})


def read(root: Path, lines: list[bytes], rows: JobRows, **expected: Any) -> Tally:
    path = root / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines))
    storage = open_storage(str(root))
    return read_results(storage, list(storage.list("results")), rows, AnswerFormat(**expected))


def test_good_lines_in_any_order(tmp_path: Path) -> None:
    lines = [line(ordinal) for ordinal in range(1000)]
    random.Random(0).shuffle(lines)
    with JobRows(1000) as rows:
        tally = read(tmp_path, lines, rows)
        found = rows.outcomes(records_of([""] * 1000))
    assert tally == Tally(lines=1000, embedded=1000)
    assert np.array_equal(found.vectors.argmax(axis=1), np.arange(1000) % WIDTH)


def test_every_kind_of_line(tmp_path: Path) -> None:
    tokens = [unit(1, WIDTH)] * 5
    lines = [
        line(0),
        line(0, unit(9, WIDTH)),
        line(1, tokens),
        line(2, "ERROR: no"),
        line(3, unit(3, WIDTH - 1)),
        line("x"),
        line(7),
        b'{"SageMakerOutput": [1]}',
        b'{"id": 4}',
        b'{"id": "00000000004"}',
        b"[1]",
        b"garbage \xff",
        line(6)[:50],
        line(5).replace(b"0.0", b"NaN", 1),
    ]
    with JobRows(7) as rows:
        tally = read(tmp_path, lines, rows)
        found = rows.outcomes(records_of([""] * 7))
    assert tally == Tally(14, embedded=1, again=5, unreadable=3, doubled=1, foreign=4)
    assert found.rows.tolist() == [0]
    assert np.array_equal(found.vectors[0], unit(0, WIDTH))
    assert {one.row: one.code for one in found.failures} == dict.fromkeys(range(1, 6), "bad_output") | {
        6: "missing_result"
    }
    assert all(one.retryable for one in found.failures)
    assert "5 rows of 16 numbers" in found.failures[0].message
    assert "15 numbers, where" in found.failures[2].message


def test_the_first_dimensions_are_kept_and_scaled(tmp_path: Path) -> None:
    with JobRows(2) as rows:
        read(tmp_path, [line(0, [3, 4, 12]), line(1, [0, 5, 12])], rows, dimensions=2)
        found = rows.outcomes(records_of([""] * 2))
    assert np.allclose(found.vectors, [[0.6, 0.8], [0, 1]])
    with JobRows(1) as rows:
        read(tmp_path, [line(0, [3, 4, 12])], rows, normalize=False)
        assert rows.outcomes(records_of([""])).vectors.tolist() == [[3, 4, 12]]


def test_answers(tmp_path: Path) -> None:
    lines = [line(1, [{"generated_text": "one"}]), line(0, "zero"), line(2, {}), line(1, "again")]
    with JobRows(3) as rows:
        tally = read(tmp_path, lines, rows, task="generate")
        assert rows.outcomes(records_of([""] * 3)).responses == ["zero", "one"]
    assert tally == Tally(4, embedded=2, again=1, doubled=1)


TOKENS, NARROW = [unit(0, WIDTH)] * 27, unit(0, WIDTH - 8)
FIRST = [  # what the first answers are, what was expected, and what the refusal says
    ([TOKENS] * 3, {}, ["27 rows of 16 numbers", "no pooling", "have the container pool"]),
    ([TOKENS], {}, ["27 rows of 16 numbers"]),
    ([NARROW] * 3, {"width": WIDTH}, ["has 8 numbers", "16", "model_name"]),
    ([NARROW] * 3, {"dimensions": WIDTH}, ["has 8 numbers", "16", "model.dimensions"]),
    ([{"a": 1, "b": 2}] * 3, {}, ['{"a":1,"b":2}', "output_field"]),
    ([unit(0)] * 3, {"task": "generate"}, ["no text is found", "output_field"]),
]


@pytest.mark.parametrize(("outputs", "expected", "said"), FIRST)
def test_output_that_nobody_asked_for_is_refused_with_figures(
    tmp_path: Path, outputs: list[Any], expected: dict[str, Any], said: list[str]
) -> None:
    lines = [line(ordinal, output) for ordinal, output in enumerate(outputs)]
    with JobRows(len(lines)) as rows, pytest.raises(UnexpectedOutput) as refused:
        read(tmp_path, lines, rows, **expected)
    assert all(words in str(refused.value) for words in said), refused.value


@pytest.mark.parametrize("odd", [TOKENS, NARROW, {"a": 1, "b": 2}, "ERROR"])
@pytest.mark.parametrize("place", ["first", "last", "later attempt"])
def test_odd_answers_among_good_ones_cost_only_themselves(tmp_path: Path, odd: Any, place: str) -> None:
    good, bad = [line(ordinal) for ordinal in range(20)], [line(ordinal, odd) for ordinal in (20, 21)]
    with JobRows(24) as rows:
        if place == "later attempt":
            read(tmp_path, good, rows)
            bad += [line(22, odd), line(23, odd)]
            good = []
        read(tmp_path, bad + good if place == "first" else good + bad, rows)
        assert rows.counts.embedded == 20
        assert rows.reasons_again() == {"bad_output": len(bad)}


COUNT = 6
KINDS = st.sampled_from(
    ["good", "other", "tokens", "narrow", "bad", "nothing", "cut", "garbage", "foreign", "csv"]
)


@settings(max_examples=80, deadline=None)
@given(
    told=st.lists(st.tuples(st.integers(0, COUNT - 1), KINDS), max_size=25),
    block=st.integers(1, 4),
    as_csv=st.booleans(),
)
def test_whatever_the_lines_every_record_has_exactly_one_end(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[int, str]], block: int, as_csv: bool
) -> None:
    def made(ordinal: int, output: Any) -> bytes:
        if not as_csv:
            return line(ordinal, output)
        flat = isinstance(output, list) and not any(isinstance(one, list) for one in output)
        cells = ",".join(map(str, output)) if flat else '"' + json.dumps(output).replace('"', '""') + '"'
        return f'{ordinal:011d},"a, ""b""",{cells}'.encode()

    makers = {
        "good": lambda n: made(n, unit(n, WIDTH)),
        "other": lambda n: made(n, unit(n + 6, WIDTH)),
        "tokens": lambda n: made(n, [unit(n, WIDTH)] * 2),
        "narrow": lambda n: made(n, unit(n, WIDTH - 8)),
        "bad": lambda n: made(n, ["a"]),
        "nothing": lambda n: made(n, {}),
        "cut": lambda n: made(n, unit(n, WIDTH))[: 9 + n],
        "garbage": lambda n: b"\x00{" + bytes([n]),
        "foreign": lambda n: made(n + COUNT + 1, unit(n, WIDTH)),
        "csv": lambda n: b'"' * (n + 1),
    }
    lines = [makers[kind](ordinal) for ordinal, kind in told]
    with JobRows(COUNT + 1) as rows, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "BLOCK_ROWS", block)
        # A good answer of an earlier attempt: so odd ones are exceptions.
        rows.embed(COUNT, np.array(unit(0, WIDTH), dtype=np.float32), 0)
        tally = read(tmp_path_factory.mktemp("results"), lines, rows, csv=as_csv)
        found = rows.outcomes(records_of([""] * COUNT))
    kinds = ("embedded", "again", "unreadable", "doubled", "foreign")
    assert tally.lines == sum(getattr(tally, kind) for kind in kinds)
    ends = {int(row): "embedded" for row in found.rows}
    for failure in found.failures:
        assert failure.row not in ends
        ends[failure.row] = failure.code
    assert sorted(ends) == list(range(COUNT))
    for ordinal in range(COUNT):
        kinds_told = [kind for n, kind in told if n == ordinal]
        good = [kind for kind in kinds_told if kind in ("good", "other")]
        if good:
            place = found.rows.tolist().index(ordinal)
            assert found.vectors[place].argmax() == (ordinal if good[0] == "good" else ordinal + 6)
        elif {"tokens", "narrow", "bad", "nothing"} & set(kinds_told):
            assert ends[ordinal] == "bad_output"
        else:
            assert ends[ordinal] == "missing_result"
