"""The cap on calls per second: every request counts, and all workers of a pipeline stay within it together."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from batch_assets.executors.ray.executor import share_of_calls
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets.worker import pacing
from batch_assets.worker.fetching import Fetcher, Fetching
from batch_assets.worker.not_fetched import NotFetched
from batch_assets.worker.pacing import Pacer
from batch_assets_tests.worker.servers import Handler, image_server

CAP = 80.0
WORKERS = 2


def fetch_all(worker: int, locations: list[str]) -> list[bytes]:
    """What one worker does, with several threads, at its share of the cap."""
    fetcher = Fetcher(
        Fetching(allow_private=True, calls_per_second=CAP / WORKERS, name=f"{worker} {time.monotonic()}")
    )
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(fetcher.fetch, locations))


def test_two_workers_make_no_more_calls_than_the_cap_together() -> None:
    with image_server() as server:
        started = time.monotonic()
        with ThreadPoolExecutor(WORKERS) as pool:
            workers = [
                pool.submit(
                    fetch_all,
                    worker,
                    [
                        *(f"{server}/good/{worker}-{number}" for number in range(12)),
                        f"{server}/to/{worker}?url=/good/{worker}-moved",
                        f"{server}/status/{worker}?code=503&times=1&after=0",
                    ],
                )
                for worker in range(WORKERS)
            ]
            contents = [content for worker in workers for content in worker.result()]
        seconds = time.monotonic() - started
        calls = sum(Handler.asked.values())
    assert set(contents) == {Handler.content}
    assert calls == WORKERS * 16  # twelve files, one by a redirect, one by a second try
    # Each worker's first call is at once; a slow machine only makes it longer.
    assert seconds >= (calls / WORKERS - 1) / (CAP / WORKERS)


def test_calls_are_spread_evenly_and_a_rest_gives_no_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(pacing.time, "monotonic", lambda: clock[0])
    pacer = Pacer(4)
    assert [pacer.wait(lambda seconds: False) for _ in range(4)] == [0, 0.25, 0.5, 0.75]
    clock[0] += 60
    assert [pacer.wait(lambda seconds: False) for _ in range(3)] == [0, 0.25, 0.5]


def test_who_waits_for_a_turn_is_stopped_at_once() -> None:
    fetcher = Fetcher(Fetching(allow_private=True, calls_per_second=0.001, name="stopped"))
    with image_server() as server:
        assert fetcher.fetch(f"{server}/good/1") == Handler.content
        timer = threading.Timer(0.05, fetcher.stop)
        timer.start()
        with pytest.raises(NotFetched, match="the run was stopped"):
            fetcher.fetch(f"{server}/good/2")
        timer.join()


def test_a_worker_has_the_whole_cap_unless_it_is_given_a_share() -> None:
    values = {"source": {"uri": "in"}, "output": {"root": "out"}, "calls_per_second": 12}
    settings = parse_pipeline(values, "photos", "a test")
    assert Fetching.of(settings).calls_per_second == 12
    shared = Fetching.of(share_of_calls(settings, 4))
    assert shared == Fetching(calls_per_second=3.0, name="photos", most_bytes=16 * 2**20)
