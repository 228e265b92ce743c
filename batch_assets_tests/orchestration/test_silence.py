"""A service that says nothing: it is waited for, with a word now and then, and in the end given up."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from batch_assets import patience
from batch_assets.control.loop import Turn
from batch_assets.errors import LastingStorageError
from batch_assets.ledger.states import State
from batch_assets.orchestration.silence import Silence
from batch_assets.patience import Patience
from batch_assets.retry_policy import AWAY_SECONDS

SILENT = Turn(silent={"texts": "bedrock: the service does not answer (503)"})


class Service:
    """A pipeline at a service of which only the last answer is known, and the clock that waiting for it moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.answered_at, self.said = 0.0, 0.0, list[str]()
        monkeypatch.setattr(patience.time, "monotonic", lambda: self.now)
        self.states = Counter[State]()
        ledger = SimpleNamespace(
            scope=lambda name: SimpleNamespace(observed_at=self.answered_at), counts=lambda name: self.states
        )
        executor = SimpleNamespace(in_place=False, quota_group="bedrock", kind="bedrock")
        pipeline: Any = SimpleNamespace(name="texts", ledger=ledger, executor=executor)
        self.silence = Silence(pipeline, Patience(self.said.append, pause=self.wait))

    def wait(self, seconds: float) -> None:
        self.now += seconds + 0.001  # a sleep ends late

    def is_silent(self, seconds: float) -> None:
        """Turns that ask in vain, with others between them that ask nothing."""

        def ask_in_vain() -> None:
            self.silence.judge(SILENT)
            self.silence.judge(Turn())

        self.go_on(ask_in_vain, seconds)

    def go_on(self, what: Callable[[], None], seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            what()


def test_a_service_that_stays_silent_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(monkeypatch)
    with pytest.raises(LastingStorageError, match=r"does not answer \(503\); its jobs go on.*; waited 300 s"):
        service.is_silent(2 * AWAY_SECONDS)
    assert AWAY_SECONDS <= service.now < AWAY_SECONDS + 1
    assert 5 <= len(service.said) <= 11


@pytest.mark.parametrize("how", ["an answer", "a job"])
def test_a_service_that_answers_again_has_all_the_time_again(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    service = Service(monkeypatch)
    for _ in range(3):
        service.is_silent(AWAY_SECONDS * 0.8)
        service.answered_at += how == "an answer"
        service.silence.judge(Turn(started=int(how == "a job")))
    assert service.now >= 2 * AWAY_SECONDS


def test_that_jobs_are_listed_is_no_answer_to_whether_one_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(monkeypatch)
    service.states[State.SUBMITTING] = 1

    def create_in_vain() -> None:
        for turn in (SILENT, Turn(), SILENT):
            service.silence.judge(turn)
            service.answered_at += 1  # by a list
            service.silence.judge(Turn())

    with pytest.raises(LastingStorageError, match=r"does not answer .*; waited 300 s"):
        service.go_on(create_in_vain, 2 * AWAY_SECONDS)
    # As soon as it is known whether it was, there is all the time again.
    service.states.clear()
    service.answered_at += 1
    service.silence.judge(Turn())
    service.is_silent(AWAY_SECONDS * 0.8)


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.COLLECTING, State.READY])
def test_that_jobs_are_listed_is_no_answer_to_what_is_collected(
    monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    """READY: of a shard's records each is a call of its own."""
    service = Service(monkeypatch)
    service.states[state] = 2

    def collect_in_vain() -> None:
        service.silence.judge(Turn())  # one that asks nobody
        service.answered_at += 1
        service.silence.judge(Turn())
        service.silence.judge_collection("bedrock: no answer (503)")

    for _ in range(3):
        service.go_on(collect_in_vain, AWAY_SECONDS * 0.8)
        service.silence.judge_collection(None)
    with pytest.raises(LastingStorageError, match=r"no answer \(503\); its jobs go on.*; waited 300 s"):
        service.go_on(collect_in_vain, 2 * AWAY_SECONDS)


def test_what_another_process_has_collected_is_waited_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(monkeypatch)
    for _ in range(3):
        service.states[State.SUCCEEDED] = 1
        collect = partial(service.silence.judge_collection, "bedrock: no answer (503)")
        service.go_on(collect, AWAY_SECONDS * 0.8)
        service.states.clear()
        service.answered_at += 1
        service.silence.judge(Turn())


def test_a_service_that_takes_some_of_the_jobs_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(monkeypatch)
    for _ in range(3):
        service.is_silent(AWAY_SECONDS * 0.8)
        service.silence.judge(Turn(started=1, silent=SILENT.silent))
    assert service.now >= 2 * AWAY_SECONDS
