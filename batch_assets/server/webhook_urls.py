"""Which URLs may be told of a request's end."""

from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool

from batch_assets.server.answers import Refused
from batch_assets.worker.addresses import PrivateAddress, public_addresses

MOST_URL = 2_000


class WebhookUrls:
    """Checks a client's URL before its request is accepted; it is checked again when it is called."""

    def __init__(self, *, has_secret: bool, allow_private_addresses: bool) -> None:
        self._has_secret = has_secret
        self._allow_private = allow_private_addresses

    async def checked(self, url: str | None) -> str | None:
        """The URL. Raises Refused."""
        if url is None:
            return None
        if not self._has_secret:
            raise Refused(
                422, "X-Webhook-Url: this server signs nothing; set BATCH_ASSETS_WEBHOOK_SECRET there"
            )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise Refused(422, f"X-Webhook-Url: {url[:200]!r}: {error}") from None
        if parts.scheme not in ("http", "https") or not host or len(url) > MOST_URL or not url.isascii():
            raise Refused(422, f"X-Webhook-Url: {url[:200]!r}: write an http:// or https:// URL")
        if not self._allow_private:
            try:
                await run_in_threadpool(public_addresses, host, port)
            except PrivateAddress as error:
                raise Refused(422, f"X-Webhook-Url: {error}, which is no address of the internet") from None
            except OSError as error:
                raise Refused(422, f"X-Webhook-Url: {host} cannot be resolved: {error}") from None
        return url
