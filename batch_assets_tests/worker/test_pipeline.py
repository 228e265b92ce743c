"""The way of a shard through reader, tokenizer and model: order, faults, ends."""

import random
import threading
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.errors import ModelError, SourceError
from batch_assets.sources.base import Records, Rejection
from batch_assets.worker.pipeline import embed
from batch_assets.worker.texts import TextWindows
from batch_assets.worker.timings import Timings
from batch_assets_tests.worker.fakes import FakeEncoder, make_records, own_threads


def texts_of(count: int, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    return [chance.choice("abcdef") * chance.randint(1, 40) for _ in range(count)]


def flatten(outcomes: list[Outcomes]) -> dict[str, tuple[float, ...] | str]:
    """Record id → its vector, or the code of its failure; in the order of the outcomes."""
    found: dict[str, tuple[float, ...] | str] = {}
    for outcome in outcomes:
        embedded = {
            int(row): tuple(vector) for row, vector in zip(outcome.rows, outcome.vectors, strict=True)
        }
        failed = {failure.row: failure.code for failure in outcome.failures}
        assert embedded.keys() | failed.keys() == set(range(len(outcome.records)))
        assert not embedded.keys() & failed.keys()
        for row, record_id in enumerate(outcome.records.record_ids):
            found[record_id] = embedded[row] if row in embedded else failed[row]
    return found


def expected(texts: list[str]) -> dict[str, tuple[float, ...]]:
    return {str(row): (float(len(text)), float(ord(text[0])), 1.0) for row, text in enumerate(texts)}


def test_outcomes_keep_source_order_over_many_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEncoder, "window_records", 250)
    texts, encoder = texts_of(1_730), FakeEncoder()
    outcomes = list(embed(make_records(texts), encoder))
    assert [len(outcome.records) for outcome in outcomes] == [100] * 17 + [30]
    assert list(flatten(outcomes).items()) == list(expected(texts).items())
    assert all(
        (outcome.token_counts == [len(text) for text in outcome.records.texts]).all() for outcome in outcomes
    )


def test_batches_stay_in_the_budget_and_are_nearly_equal_in_length() -> None:
    encoder = FakeEncoder()
    list(embed(make_records(texts_of(2_000)), encoder, batch_tokens=100))
    assert all(len(batch) == 1 or len(batch) * max(map(len, batch)) <= 100 for batch in encoder.batches)
    padded = sum(len(batch) * max(map(len, batch)) for batch in encoder.batches)
    assert padded <= 1.02 * sum(len(text) for batch in encoder.batches for text in batch)


def test_nothing_gives_nothing() -> None:
    assert list(embed(iter(()), FakeEncoder())) == []
    (outcome,) = embed(make_records([""], size=1), FakeEncoder())
    assert [failure.code for failure in outcome.failures] == ["no_tokens"]


def test_records_that_make_the_model_raise_cost_themselves_only() -> None:
    def fault(texts: list[str]) -> None:
        if any(text.startswith("X") for text in texts):
            raise IndexError("index out of range in self")

    texts = texts_of(500)
    for row in (3, 77, 78, 499):
        texts[row] = "X" + texts[row]
    outcomes = list(embed(make_records(texts), FakeEncoder(fault)))
    found = flatten(outcomes)
    assert [key for key, value in found.items() if value == "model_error"] == ["3", "77", "78", "499"]
    assert {key: value for key, value in found.items() if value != "model_error"} == {
        key: value for key, value in expected(texts).items() if key not in {"3", "77", "78", "499"}
    }
    messages = {failure.message for outcome in outcomes for failure in outcome.failures}
    assert messages == {"IndexError: index out of range in self"}


def test_a_text_the_tokenizer_refuses_costs_itself_only() -> None:
    texts = texts_of(300)
    texts[123] = "untokenizable"
    found = flatten(list(embed(make_records(texts), FakeEncoder())))
    assert [key for key, value in found.items() if value == "model_error"] == ["123"]


def test_out_of_memory_halves_the_budget_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def fault(texts: list[str]) -> None:
        if len(texts) * max(map(len, texts)) > 100:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory")

    texts, encoder = texts_of(3_000), FakeEncoder(fault, threads=1)
    assert flatten(list(embed(make_records(texts), encoder, batch_tokens=1_000))) == expected(texts)
    failed = [batch for batch in encoder.batches if len(batch) * max(map(len, batch)) > 100]
    assert len(failed) <= 8  # 1000, 500, 250, 125 and their like; the later batches were cut smaller at once
    assert "out of memory" in caplog.text


def test_a_record_too_big_for_the_memory_alone_is_a_failure() -> None:
    def fault(texts: list[str]) -> None:
        if max(map(len, texts)) > 30:
            raise MemoryError

    texts = texts_of(400)
    found = flatten(list(embed(make_records(texts), FakeEncoder(fault))))
    assert [key for key, value in found.items() if value == "out_of_memory"] == [
        str(row) for row, text in enumerate(texts) if len(text) > 30
    ]


def test_vectors_that_mean_nothing_are_failures() -> None:
    class Strange(FakeEncoder):
        normalized = True

        def encode(self, inputs: list[str]) -> np.ndarray:
            vectors = super().encode(inputs)
            vectors[[text.startswith("n") for text in inputs]] = np.nan
            vectors[[text.startswith("z") for text in inputs]] = 0
            return vectors

    found = flatten(list(embed(make_records(["a", "nan", "b", "zero", "c"]), Strange())))
    assert [value if isinstance(value, str) else "" for value in found.values()] == [
        "", "non_finite", "", "zero_norm", "",
    ]  # fmt: skip


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: device lost"), ModelError("gone")])
def test_a_lost_device_is_raised_not_recorded(error: Exception) -> None:
    broken = threading.Event()

    def fault(texts: list[str]) -> None:
        if broken.is_set():
            raise error

    encoder = FakeEncoder(fault)
    outcomes = embed(make_records(texts_of(20_000)), encoder)
    next(outcomes)
    broken.set()
    with pytest.raises(type(error), match=str(error)):
        list(outcomes)
    assert own_threads() == []


def test_a_model_that_never_works_is_raised() -> None:
    def fault(texts: list[str]) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        list(embed(make_records(texts_of(5_000)), FakeEncoder(fault)))


def test_many_bad_records_in_a_row_are_theirs_while_the_model_is_well() -> None:
    def fault(texts: list[str]) -> None:
        if max(map(len, texts)) > 20:  # sorted by length, they all come first
            raise IndexError("too long")

    texts = ["short", *("x" * 25 for _ in range(300)), "short"]
    found = flatten(list(embed(make_records(texts), FakeEncoder(fault, threads=1))))
    assert [key for key, value in found.items() if value == "model_error"] == [
        str(row) for row in range(1, 301)
    ]


def test_an_error_of_the_source_surfaces_and_ends_the_threads() -> None:
    def source() -> Iterator[Records]:
        yield from make_records(texts_of(500))
        raise SourceError("in.jsonl was changed since it was planned")

    with pytest.raises(SourceError, match="changed since"):
        list(embed(source(), FakeEncoder()))
    assert own_threads() == []


def test_closing_early_ends_the_threads_at_once_and_closes_the_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeEncoder, "window_records", 200)
    closed = threading.Event()

    def source() -> Iterator[Records]:
        try:
            yield from make_records(texts_of(100_000))
        finally:
            closed.set()

    encoder = FakeEncoder(delay=0.002)
    outcomes = embed(source(), encoder)
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert own_threads() == []
    assert closed.is_set()
    assert encoder.texts_tokenized < 2_000  # no more was read ahead than the windows allow


def test_an_interrupt_in_the_consumer_ends_the_threads() -> None:
    def progress(records: int, tokens: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(embed(make_records(texts_of(5_000)), FakeEncoder(delay=0.001), progress=progress))
    assert own_threads() == []


def test_progress_tells_every_record_and_token() -> None:
    texts = [*texts_of(1_000), "", "untokenizable"]
    seen: list[tuple[int, int]] = []
    list(
        embed(
            make_records(texts),
            FakeEncoder(),
            progress=lambda records, tokens: seen.append((records, tokens)),
        )
    )
    assert sum(records for records, _ in seen) == len(texts)
    assert sum(tokens for _, tokens in seen) == sum(map(len, texts)) - len("untokenizable")


def test_a_slow_consumer_bounds_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEncoder, "window_records", 100)
    taken = 0

    def source() -> Iterator[Records]:
        nonlocal taken
        for records in make_records(texts_of(20_000)):
            taken += 1
            yield records

    outcomes = embed(source(), FakeEncoder())
    # A reader that nothing holds up would be far ahead by the end.
    for consumed in range(1, 50):
        next(outcomes)
        assert taken <= consumed + 10
    outcomes.close()  # type: ignore[attr-defined]


def test_long_texts_close_a_window_before_its_records_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch_assets.worker.texts.WINDOW_CHARACTERS", 1_000)
    encoder = FakeEncoder()
    texts = ["x" * 30 for _ in range(1_000)]
    assert flatten(list(embed(make_records(texts, size=50), encoder))) == expected(texts)


def test_rejected_records_close_a_window_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch_assets.worker.texts.WINDOW_CHARACTERS", 5_000)
    columns = pa.RecordBatch.from_pydict({"text": pa.array([], pa.string())})
    rejected = [Rejection(row, "x" * 1_000, "f.jsonl", row, "no_text", "none") for row in range(40)]
    parts = [Records([], [], [], [], [], columns, [rejection]) for rejection in rejected]
    windows = list(TextWindows(FakeEncoder(), Timings({})).windows(iter(parts)))
    assert [len(window.parts) for window in windows] == [9, 9, 9, 9, 4]
    outcomes = list(embed(iter(parts), FakeEncoder()))
    assert [item for outcome in outcomes for item in outcome.records.rejections] == rejected
