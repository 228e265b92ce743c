"""Target `slack:URL`: an incoming webhook of Slack, or of what takes the same body (Mattermost, Rocket.Chat)."""

from dataclasses import dataclass, field

from batch_assets.notifications.base import Notification
from batch_assets.notifications.posting import host_of, post_json


@dataclass(frozen=True)
class SlackNotifier:
    """Posts `{"text": …}` in Slack's markup."""

    url: str = field(repr=False)

    @property
    def target(self) -> str:
        return f"slack ({host_of(self.url)})"

    def send(self, notification: Notification) -> None:
        """Raises DeliveryError where Slack does not take it."""
        # A backtick would end the code early; no command of ours needs one.
        command = notification.command.replace("`", "'")
        lines = (
            f"*{_escape(notification.title)}*",
            _escape(notification.happened),
            _escape(notification.meaning),
            f"`{_escape(command)}`",
        )
        post_json(self.url, {"text": "\n".join(lines)})


def _escape(text: str) -> str:
    """Slack's three control characters as themselves: no error message may mention a channel or make a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
