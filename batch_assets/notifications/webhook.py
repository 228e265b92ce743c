"""Target `webhook:URL`: any HTTP server that takes JSON."""

from dataclasses import asdict, dataclass, field

from batch_assets.notifications.base import Notification
from batch_assets.notifications.posting import host_of, post_json


@dataclass(frozen=True)
class WebhookNotifier:
    """Posts a JSON object with all fields of the notification under their names."""

    url: str = field(repr=False)

    @property
    def target(self) -> str:
        return f"webhook ({host_of(self.url)})"

    def send(self, notification: Notification) -> None:
        """Raises DeliveryError where the server does not answer with a 2xx status."""
        post_json(self.url, asdict(notification))
