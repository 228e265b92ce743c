"""The way of images through the worker: fetched, decoded a few at a time, in order; bad ones cost themselves."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.tables import check_complete
from batch_assets.retry_policy import RECORDS_FAILED_IN_A_ROW
from batch_assets.sources.base import Records
from batch_assets.worker import web
from batch_assets.worker.fetching import Fetching
from batch_assets.worker.images import AHEAD
from batch_assets.worker.pipeline import embed
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until
from batch_assets_tests.worker.fakes import FakeImageEncoder, make_images, own_threads
from batch_assets_tests.worker.servers import Handler, image_server

PRIVATE = Fetching(allow_private=True)


def numbers(count: int) -> list[bytes | str]:
    return [str(number).encode() for number in range(count)]


def found_in(outcomes: Sequence[Outcomes]) -> dict[int, Any]:
    """Ordinal → number of its image by the vector, or code of its failure (in brackets: rejected)."""
    found: dict[int, Any] = {}
    first = 0
    for outcome in outcomes:
        rejected = check_complete(outcome, first, "g0001-00000")
        first += len(outcome.records) + rejected
        found |= {rejection.ordinal: f"<{rejection.code}>" for rejection in outcome.records.rejections}
        ordinals = outcome.records.ordinals
        assert outcome.records.columns.column("row").to_pylist() == ordinals
        for row, vector in zip(outcome.rows, outcome.vectors, strict=True):
            found[ordinals[row]] = int(vector[0])
            assert vector[1] == len(str(ordinals[row]))  # the caption went along
        for failure in outcome.failures:
            found[ordinals[failure.row]] = f"({failure.code})" if failure.rejected else failure.code
    return found


def test_order_and_rejections_are_kept_over_many_windows_and_parts() -> None:
    rejected = {0, 5, 63, 64, 65, 100, 199, 200, 399}
    outcomes = list(embed(make_images(numbers(400), size=200, rejected=rejected), FakeImageEncoder()))
    assert found_in(outcomes) == {
        number: "<no_image>" if number in rejected else number for number in range(400)
    }
    assert all(outcome.records.images is None for outcome in outcomes)  # nothing holds the files any longer
    assert list(embed(iter(()), FakeImageEncoder())) == []


def test_bad_images_cost_themselves_and_are_rejected() -> None:
    images = numbers(100)
    images[7] = images[8] = b"broken"
    images[20] = b"odd"
    found = found_in(list(embed(make_images(images), FakeImageEncoder())))
    bad = {7: "(broken_image)", 8: "(broken_image)", 20: "model_error"}
    assert found == {number: bad.get(number, number) for number in range(100)}


def test_every_image_bad_is_no_error_of_the_model() -> None:
    found = found_in(list(embed(make_images([b"broken"] * 500), FakeImageEncoder())))
    assert set(found.values()) == {"(broken_image)"}


def test_an_image_the_model_fails_on_costs_itself_and_a_model_that_always_fails_is_raised() -> None:
    def fault(inputs: list[Any]) -> None:
        if any(number == 13 for number, _ in inputs):
            raise IndexError("not this one")

    found = found_in(list(embed(make_images(numbers(60)), FakeImageEncoder(fault))))
    assert found == {number: "model_error" if number == 13 else number for number in range(60)}

    def always(inputs: list[Any]) -> None:
        raise RuntimeError("CUDA error: device lost")

    with pytest.raises(RuntimeError, match="device lost"):
        list(embed(make_images(numbers(4 * RECORDS_FAILED_IN_A_ROW)), FakeImageEncoder(always)))
    assert own_threads() == []


def test_many_failures_in_a_row_are_the_images_own_while_the_model_takes_a_good_one() -> None:
    def fault(inputs: list[Any]) -> None:
        if any(number for number, _ in inputs):  # the probe is no number
            raise ValueError("a number")

    images = numbers(3 * RECORDS_FAILED_IN_A_ROW)
    found = found_in(list(embed(make_images(images), FakeImageEncoder(fault))))
    assert list(found.values()) == [0] + ["model_error"] * (len(images) - 1)


def test_batches_keep_to_records_and_tokens_and_shrink_where_memory_runs_out() -> None:
    def fault(inputs: list[Any]) -> None:
        if len(inputs) > 5:
            raise MemoryError

    encoder = FakeImageEncoder()
    list(embed(make_images(numbers(200)), encoder, batch_records=7))
    assert max(map(len, encoder.batches)) == 7
    encoder = FakeImageEncoder(fault, threads=1)
    assert found_in(list(embed(make_images(numbers(400)), encoder))) == {n: n for n in range(400)}
    assert sum(len(batch) > 5 for batch in encoder.batches) <= 4


def test_images_elsewhere_are_fetched_many_at_once_and_in_order(tmp_path: Path) -> None:
    waiting, most = 0, 0
    lock, many = threading.Lock(), threading.Event()

    def answer(self: Handler, query: dict[str, str]) -> None:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
            if most > 8:
                many.set()
        assert many.wait(PATIENCE_SECONDS), "they are not fetched at once"
        with lock:
            waiting -= 1
        self.content = self.path.rpartition("/")[2].encode()
        self.answer(200)

    with image_server() as url, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "answer_good", answer)
        images: list[bytes | str] = [f"{url}/good/{number}" for number in range(200)]
        (tmp_path / "17").write_bytes(b"17")
        images[17], images[18] = str(tmp_path / "17"), b"18"
        images[19], images[20] = f"{url}/status?code=404", "ftp://nowhere/1.jpg"
        timings: dict[str, float] = {}
        outcomes = embed(make_images(images), FakeImageEncoder(), fetching=PRIVATE, timings=timings)
        found = found_in(list(outcomes))
    bad = {19: "(image_missing)", 20: "(bad_url)"}
    assert found == {number: bad.get(number, number) for number in range(200)}
    assert 8 < most <= 64
    assert timings["fetch_seconds"] > 0
    assert timings.keys() == {"fetch_seconds", "prepare_seconds", "model_seconds"}


def test_a_slow_consumer_bounds_what_is_read_and_decoded() -> None:
    taken = 0

    def source() -> Iterator[Records]:
        nonlocal taken
        for records in make_images(numbers(20_000), size=16):
            taken += len(records)
            yield records

    encoder, consumed = FakeImageEncoder(), 0
    outcomes = embed(source(), encoder)
    # A reader that nothing holds up would be far ahead by the end.
    for _ in range(50):
        consumed += len(next(outcomes).records)
        # Two windows at the model, one ahead, one waiting to be that, and those begun behind it.
        most = consumed + 4 * (32 + 64) + 32 + AHEAD
        assert encoder.texts_tokenized <= most and taken <= most + 100
    outcomes.close()  # type: ignore[attr-defined]
    assert own_threads() == []


def test_a_server_that_hangs_holds_up_only_what_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TOTAL_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr("batch_assets.worker.fetching.IMAGE_TRIES", 1)
    encoder = FakeImageEncoder()

    def hang(self: Handler, query: dict[str, str]) -> None:
        """Until the others have been decoded as far as that goes without these; then it hangs up."""
        wait_until(lambda: encoder.texts_tokenized >= 64 + 56 + AHEAD, lambda: encoder.texts_tokenized)
        self.close_connection = True

    monkeypatch.setattr(Handler, "answer_hang", hang, raising=False)
    with image_server() as url:
        images = numbers(600)
        for number in range(70, 80):
            images[number] = f"{url}/hang/{number}"
        found = found_in(list(embed(make_images(images), encoder, fetching=PRIVATE)))
    assert found == {n: "fetch_error" if 70 <= n < 80 else n for n in range(600)}


def test_closing_early_ends_fetches_that_hang() -> None:
    with image_server() as url:
        hanging = [f"{url}/drip/{number}" for number in range(10)]
        outcomes = embed(make_images([*numbers(192), *hanging]), FakeImageEncoder(), fetching=PRIVATE)
        next(outcomes)
        wait_until(lambda: Handler.asked)
        outcomes.close()  # type: ignore[attr-defined]
        assert own_threads() == []


def test_vectors_are_float32_and_one_for_each_good_image() -> None:
    images = numbers(10)
    images[3] = b"broken"
    (outcome,) = embed(make_images(images), FakeImageEncoder())
    assert outcome.vectors.dtype == np.float32 and outcome.vectors.shape == (9, 3)
    assert outcome.token_counts.tolist() == [4] * 9
