"""For tests without a Ray: a clock that they move, and answers that take the time that the machine needs."""

import pytest

from batch_assets.executors.ray import pulse, shared
from batch_assets_tests.executors.ray.helpers import Clock
from batch_assets_tests.waiting import PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def answers_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked in a thread is answered, however long the machine takes to run it."""
    monkeypatch.setattr(pulse, "ANSWER_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(shared, "LEAVE_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def clock() -> Clock:
    """The clock by which Ray is waited for."""
    return Clock()
