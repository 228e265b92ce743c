"""Target `log`: Python's logging, at the level of the notification's severity."""

import logging
from dataclasses import dataclass

from batch_assets.notifications.base import Notification
from batch_assets.plain_text import plain_logger

logger = plain_logger(__name__)

LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass(frozen=True)
class LogNotifier:
    """Writes to the log of whatever process noticed the event."""

    target: str = "log"

    def send(self, notification: Notification) -> None:
        """Never fails. A log has one line for one event."""
        logger.log(LEVELS[notification.severity], "%s", notification.text().replace("\n", " | "))
