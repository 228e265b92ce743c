"""What befalls any call of any control plane: throttling, server errors, replies that are lost."""

from dataclasses import dataclass

from batch_assets.rehearsal.faults import Scenario
from batch_assets.rehearsal.throttle import Throttle
from batch_assets.rehearsal.wire import Reply, ServiceError


@dataclass(frozen=True, slots=True)
class Words:
    """How one service says it: code and message."""

    throttled: tuple[str, str] = (
        "ThrottlingException", "Too many requests, please wait before trying again.",
    )  # fmt: skip
    failed: tuple[str, str] = (
        "InternalServerException", "The system encountered an unexpected error. Try again.",
    )  # fmt: skip


class CallFaults:
    """One for each service: the chances are seeded, the order of calls no seed can fix."""

    def __init__(self, scenario: Scenario, words: Words, seed_name: str) -> None:
        self.scenario = scenario
        self._words = words
        self._throttle = Throttle()
        self._chance = scenario.draw(seed_name)

    def befall(self, name: str, region: str) -> None:
        """Raises ServiceError where a fault strikes before anything is done."""
        calls = self.scenario.calls
        rate = calls.per_second.get(name)
        if self._chance.random() < calls.throttled or (
            rate and not self._throttle.admits((name, region), rate, rate)
        ):
            raise ServiceError(*self._words.throttled)
        if self._chance.random() < calls.server_errors:
            raise ServiceError(*self._words.failed)

    def after_accepting(self) -> Reply | None:
        """The end of a create whose reply is lost: a cut connection, or ServiceError. None: it is not lost."""
        if self._chance.random() >= self.scenario.calls.lost_responses:
            return None
        if self._chance.random() < 0.5:
            return Reply(0, b"", cut=True)
        raise ServiceError(*self._words.failed)
