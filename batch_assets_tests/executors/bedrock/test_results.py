"""Result files: every line is sorted, a bad one costs only itself, every record has exactly one end."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.executors.aws import results as lines
from batch_assets.executors.aws import sorting
from batch_assets.executors.aws.results import Tally
from batch_assets.executors.bedrock.families.base import Family
from batch_assets.executors.bedrock.results import ManifestCounts, read_manifest, read_results
from batch_assets.storage import open_storage
from batch_assets_tests.executors.bedrock.builders import (
    CLAUDE,
    DIMENSIONS,
    error,
    family,
    line,
    records_of,
    titan_output,
    unit,
)

FILE = "results/a1b2c3d4e5f6/g0001-00000-1-00000.jsonl.out"


def read(root: Path, content: bytes, rows: JobRows, asked: Family | None = None, attempt: int = 1) -> Tally:
    path = root / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return read_results(open_storage(str(root)), [FILE], rows, asked or family(), attempt)


def test_good_lines_in_any_order(tmp_path: Path) -> None:
    lines = [line(ordinal) for ordinal in range(1000)]
    random.Random(0).shuffle(lines)
    with JobRows(1000) as rows:
        tally = read(tmp_path, b"\n".join(lines) + b"\n", rows)
        found = rows.outcomes(records_of([""] * 1000))
    assert tally == Tally(lines=1000, embedded=1000, input_tokens=sum(range(1, 1001)))
    assert np.array_equal(found.vectors.argmax(axis=1), np.arange(1000) % DIMENSIONS)
    assert found.token_counts.tolist() == list(range(1, 1001))


def test_every_kind_of_line(tmp_path: Path) -> None:
    content = b"\n".join(
        [
            line(0),
            line(0, modelOutput={"embedding": unit(9), "inputTextTokenCount": 99}),
            line(1, error=error(429, "slow down", retryable=True, expired=False)),
            line(2, error=error(400, "malformed")),
            line(3, modelOutput={"embedding": unit(3, 255), "inputTextTokenCount": 1}),
            line(4),
            line("foreign", modelOutput=titan_output(0)),
            line(7),
            orjson.dumps({"modelInput": {}, "modelOutput": titan_output(0)}),
            b"",
            b"[1, 2]",
            b"garbage \xff",
            line(5, modelOutput=None),
            line(6)[:200],
        ]
    )
    with JobRows(7) as rows:
        tally = read(tmp_path, content, rows, attempt=2)
        found = rows.outcomes(records_of([""] * 7))
    assert tally == Tally(
        13, embedded=2, failed=1, again=3, unreadable=3, doubled=1, foreign=3, input_tokens=6
    )
    assert found.rows.tolist() == [0, 4]
    assert np.array_equal(found.vectors[0], unit(0))
    assert [(one.row, one.code, one.retryable) for one in found.failures] == [
        (1, "service_429", True),
        (2, "service_400", False),
        (3, "bad_output", True),
        (5, "bad_output", True),
        (6, "missing_result", True),
    ]
    assert found.failures[1].attempts == 2


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"1e999", b"-1e60", b"1" * 400])
def test_a_number_that_is_none_costs_its_record_alone(tmp_path: Path, value: bytes) -> None:
    bad = line(1).replace(b"[0.0", b"[" + value, 1)
    with JobRows(3) as rows:
        tally = read(tmp_path, b"\n".join([line(0), bad, line(2)]), rows)
        found = rows.outcomes(records_of([""] * 3))
    assert (tally.embedded, tally.again) == (2, 1)
    assert [(one.row, one.code) for one in found.failures] == [(1, "bad_output")]


@pytest.mark.parametrize("normalize", [True, False])
def test_lengths(tmp_path: Path, normalize: bool) -> None:
    asked = family(model={"dimensions": DIMENSIONS, "normalize": normalize})
    near = np.array(unit(1)) * (1 + 5e-5)
    vectors = [np.array(unit(0)) * 3, near, np.array(unit(2)) * 1e30, np.zeros(DIMENSIONS)]
    content = b"\n".join(
        line(ordinal, modelOutput={"embedding": vector.tolist(), "inputTextTokenCount": 1})
        for ordinal, vector in enumerate(vectors)
    )
    with JobRows(4) as rows:
        read(tmp_path, content, rows, asked)
        found = rows.outcomes(records_of([""] * 4))
    if normalize:
        assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-4)
        assert np.array_equal(found.vectors[1], near.astype(np.float32))  # noise stays as it came
        assert [(one.row, one.message) for one in found.failures] == [(3, "the embedding has no direction")]
    else:
        assert np.array_equal(found.vectors, np.array(vectors, dtype=np.float32))


def test_answers(tmp_path: Path) -> None:
    def answer(text: str) -> dict[str, Any]:
        usage = {"input_tokens": 3, "output_tokens": 2}
        return {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": usage}

    lone = line(2, modelOutput=answer("x")).replace(b'"x"', b'"\\ud800"')
    lines = [
        line(1, modelOutput=answer("one")),
        line(0, modelOutput=answer("")),
        lone,
        line(3, modelOutput={}),
    ]
    with JobRows(4) as rows:
        tally = read(tmp_path, b"\n".join([*lines, *lines]), rows, family(CLAUDE))
        found = rows.outcomes(records_of([""] * 4))
    assert found.responses == ["", "one", "?"]
    assert tally == Tally(8, embedded=3, again=2, doubled=3, input_tokens=9, output_tokens=6)
    assert [one.code for one in found.failures] == ["bad_output"]


def test_lines_across_chunks() -> None:
    content = b"a\n\n \r\nbb\nccc\r\ndddd"
    for size in range(1, len(content) + 1):
        chunks = [content[start : start + size] for start in range(0, len(content), size)]
        assert list(lines.split_lines(chunks)) == [b"a", b"bb", b"ccc\r", b"dddd"]


def test_a_line_beyond_all_reason_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 1000)
    content = b"a\n" + b"x" * 5000 + b"\nb\n" + b"y" * 5000
    chunks = [content[start : start + 64] for start in range(0, len(content), 64)]
    found = list(lines.split_lines(chunks))
    assert [one[:1] for one in found] == [b"a", b"x", b"b", b"y"]
    assert max(map(len, found)) <= 1000


def test_manifest() -> None:
    real = (
        b'{"totalRecordCount":200,"processedRecordCount":200,"successRecordCount":198,"errorRecordCount":2,'
        b'"inputTokenCount":13142,"outputTokenCount":84959}'
    )
    assert read_manifest(real) == ManifestCounts(200, 200, 198, 2, 13142, 84959)
    assert read_manifest(b'{"totalRecordCount":"7","x":1}') == ManifestCounts(
        None, None, None, None, None, None
    )
    assert read_manifest(real[:50]) is None
    assert read_manifest(b"[]") is None


COUNT = 6
KINDS = st.sampled_from(["good", "other", "again", "final", "bad", "nothing", "cut", "garbage", "foreign"])


@settings(max_examples=60, deadline=None)
@given(
    told=st.lists(st.tuples(st.integers(0, COUNT - 1), KINDS), max_size=25),
    ending=st.booleans(),
    block=st.integers(1, 4),
)
def test_whatever_the_lines_every_record_has_exactly_one_end(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[int, str]], ending: bool, block: int
) -> None:
    made = {
        "good": line,
        "other": lambda n: line(n, modelOutput={"embedding": unit(n + 100), "inputTextTokenCount": 1}),
        "again": lambda n: line(n, error=error(503)),
        "final": lambda n: line(n, error=error(400)),
        "bad": lambda n: line(n, modelOutput={"embedding": []}),
        "nothing": lambda n: line(n, modelInput={}),
        "cut": lambda n: line(n)[: 40 + n],
        "garbage": lambda n: b"\x00{" + bytes([n]),
        "foreign": lambda n: line(n + COUNT, modelOutput=titan_output(n)),
    }
    content = b"\n".join(made[kind](ordinal) for ordinal, kind in told) + b"\n" * ending
    with JobRows(COUNT) as rows, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "BLOCK_ROWS", block)
        tally = read(tmp_path_factory.mktemp("results"), content, rows)
        found = rows.outcomes(records_of([""] * COUNT))
    kinds = ("embedded", "failed", "again", "unreadable", "doubled", "foreign")
    assert tally.lines == len(told) == sum(getattr(tally, kind) for kind in kinds)
    ends = {int(row): "embedded" for row in found.rows}
    for failure in found.failures:
        assert failure.row not in ends
        ends[failure.row] = failure.code
    assert sorted(ends) == list(range(COUNT))
    for place, ordinal in enumerate(found.rows.tolist()):
        first = next(kind for n, kind in told if n == ordinal and kind in ("good", "other"))
        assert found.vectors[place].argmax() == (ordinal if first == "good" else ordinal + 100)
    for ordinal in range(COUNT):
        kinds_told = {kind for n, kind in told if n == ordinal}
        if kinds_told & {"good", "other"}:
            assert ends[ordinal] == "embedded"
        elif "final" in kinds_told:
            assert ends[ordinal] == "service_400"
        elif kinds_told & {"again", "bad", "nothing"}:
            assert ends[ordinal] in ("service_503", "bad_output")
        else:
            assert ends[ordinal] == "missing_result"
