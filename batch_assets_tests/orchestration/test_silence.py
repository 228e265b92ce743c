"""A service that says nothing: it is waited for, with a word now and then, and in the end given up."""

from types import SimpleNamespace
from typing import Any

import pytest

from batch_assets import retry_policy
from batch_assets.control.loop import Turn
from batch_assets.errors import LastingStorageError
from batch_assets.orchestration.silence import Silence
from batch_assets.retry_policy import AWAY_SECONDS, Patience

SILENT = Turn(silent={"texts": "bedrock: the service does not answer (503)"})


class Service:
    """A pipeline at a service of which only the last answer is known, and the clock that waiting for it moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.answered_at, self.said = 0.0, 0.0, list[str]()
        monkeypatch.setattr(retry_policy.time, "monotonic", lambda: self.now)
        scope = SimpleNamespace(scope=lambda name: SimpleNamespace(observed_at=self.answered_at))
        executor = SimpleNamespace(in_place=False, scope="bedrock", kind="bedrock")
        pipeline: Any = SimpleNamespace(name="texts", ledger=scope, executor=executor)
        self.silence = Silence(pipeline, Patience(self.said.append, pause=self.wait))

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def is_silent(self, seconds: float) -> None:
        """Turns that ask in vain, with others between them that ask nothing."""
        until = self.now + seconds
        while self.now < until:
            self.silence.judge(SILENT)
            self.silence.judge(Turn())


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
