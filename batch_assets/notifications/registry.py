"""Makes the targets that a deployment has named, from one environment variable."""

import os
import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from batch_assets.errors import ConfigurationError
from batch_assets.notifications.base import Notifier
from batch_assets.notifications.log import LogNotifier
from batch_assets.notifications.slack import SlackNotifier
from batch_assets.notifications.sns import SnsNotifier
from batch_assets.notifications.webhook import WebhookNotifier

VARIABLE = "BATCH_ASSETS_NOTIFY"
EXAMPLE = (
    "log sns:arn:aws:sns:us-east-1:123456789012:alerts slack:https://hooks.slack.com/services/… "
    "webhook:https://host/path"
)
# A name that ends in .fifo is no match: those topics lead to queues only, and order means nothing here.
TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}")


def create_notifiers(targets: str | None = None) -> tuple[Notifier, ...]:
    """The targets of a space-separated list: `targets`, else $BATCH_ASSETS_NOTIFY, else the log alone.

    Raises ConfigurationError, which says which part is wrong and does not repeat its URL.
    """
    written = targets or os.environ.get(VARIABLE, "")
    parts = list(dict.fromkeys(written.split())) or ["log"]
    return tuple(_create(number, part) for number, part in enumerate(parts, start=1))


def _create(number: int, part: str) -> Notifier:
    kind, _, address = part.partition(":")
    if part == "log":
        return LogNotifier()
    if kind in ADDRESSED:
        what_is_wrong, create = ADDRESSED[kind]
        reason = what_is_wrong(address)
        if reason is None:
            return create(address)
    else:
        reason = "is no known target; begin it with log, sns:, slack: or webhook:"
    # Of a part that was written wrongly, nothing but a plain word before a colon is sure to be no secret.
    shown = f" ({kind}:…)" if re.fullmatch("[a-z]{1,10}", kind) and kind != part else ""
    raise ConfigurationError(f"{VARIABLE}: part {number}{shown} {reason}. Write a list such as: {EXAMPLE}")


def _wrong_topic(arn: str) -> str | None:
    if TOPIC.fullmatch(arn):
        return None
    return f"{arn!r} is not the ARN of a standard topic: arn:aws:sns:<region>:<account>:<name>"


def _wrong_url(url: str) -> str | None:
    """Why this is no URL to post to. The host is the operator's own choice: a private one is as good."""
    try:
        split = urlsplit(url)
        port_is_right = split.port != 0
    except ValueError:
        return "is not a URL: its host or port cannot be read"
    if split.scheme not in ("http", "https") or not split.hostname or not port_is_right:
        return "must have https:// or http:// and a host after its first colon"
    return None


Check = Callable[[str], str | None]
ADDRESSED: Mapping[str, tuple[Check, Callable[[str], Notifier]]] = {
    "sns": (_wrong_topic, SnsNotifier),
    "slack": (_wrong_url, SlackNotifier),
    "webhook": (_wrong_url, WebhookNotifier),
}
