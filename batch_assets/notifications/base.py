"""What a notification is, and what a target of notifications does with one.

One file beside this one for each kind of target; `registry.py` makes them from a setting.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from batch_assets.errors import BatchAssetsError
from batch_assets.plain_text import plain_text

Severity = Literal["info", "warning", "error"]


class DeliveryError(BatchAssetsError):
    """A target did not take a notification. The text never holds a URL: its path may be the secret."""


@dataclass(frozen=True)
class Notification:
    """One event that a person should know of, in whole sentences, each on one line whatever it quotes.

    `key` is unique to the event: what has the same key is told once, whoever notices it how often.
    `command` is what to type next.
    """

    key: str
    title: str
    happened: str
    meaning: str
    command: str
    pipeline: str
    severity: Severity

    def __post_init__(self) -> None:
        for name in ("title", "happened", "meaning", "command"):
            object.__setattr__(self, name, plain_text(getattr(self, name)))

    def text(self) -> str:
        """All that a person reads, as plain text of four lines."""
        return f"{self.title}\n{self.happened}\n{self.meaning}\nNext: {self.command}"


class Notifier(Protocol):
    """A target: somewhere a notification is sent."""

    @property
    def target(self) -> str:
        """Its name in logs: the kind and where it leads, nothing secret."""
        ...

    def send(self, notification: Notification) -> None:
        """Send it, within some ten seconds. Raises DeliveryError where the target did not take it."""
        ...
