"""Tells of an event once, over all processes, and never to the harm of whoever noticed it."""

from collections.abc import Callable, Iterable

from batch_assets.notifications.base import DeliveryError, Notification, Notifier
from batch_assets.notifications.log import LogNotifier
from batch_assets.plain_text import plain_logger

logger = plain_logger(__name__)


def notify(once: Callable[[str], bool], notifiers: Iterable[Notifier], notification: Notification) -> bool:
    """Send `notification` to every target, unless its key was told before; whether this call did.

    `once` is True for the first caller with a key, over all processes (the ledger's `notice_once`);
    what it raises goes to the caller. The key is taken before anything is sent, so that a crash in
    between costs a notification rather than doubling it. A target that fails is logged, and the
    others still get theirs; where none takes it, the log has all of it.
    """
    if not once(notification.key):
        return False
    taken = False
    for notifier in notifiers:
        try:
            notifier.send(notification)
            taken = True
        except DeliveryError as error:
            logger.error("not notified: %s: %s (%s)", notifier.target, error, notification.key)
        except Exception as error:
            # No text and no traceback: of an error nobody foresaw, both may hold the target's URL.
            logger.error("not notified: %s: %s (%s)", notifier.target, type(error).__name__, notification.key)
    if not taken:
        LogNotifier().send(notification)
    return True
