"""One try of one call: what goes out, and what comes back or does not.

Whether it is tried again, and what the answer means, is decided in `delivery.py` and `verdicts.py`.
"""

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from batch_assets.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server has answered: the whole body, as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswer(Exception):
    """A call without an answer, or with a part of one; whether the server has computed anything is not known."""


class NotReached(NoAnswer):
    """Nobody has taken the call: nothing was computed for it."""


class TimedOut(NoAnswer):
    """The server has not answered in time."""


class Client:
    """Connections to one server. Made and used in one event loop.

    `headers` go with each call. After `timeout_seconds` a call is given up. `secret` is taken out of whatever the
    server says, where it repeats it.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = 300.0,
        secret: str | None = None,
    ) -> None:
        import aiohttp  # not above: every code location loads this module, and few call a server

        self.base_url = base_url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._proxy = _proxy_for(base_url)
        self._secret = secret.encode() if secret else None
        self._session = aiohttp.ClientSession(
            # How many connections there are, is how many calls the window lets go out.
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=min(timeout_seconds, 30.0)),
            headers={"Content-Type": "application/json", **(headers or {})},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Send `body` (JSON) to `path`. Raises NoAnswer, and ConfigurationError for a header that cannot be sent."""
        return await self._request("POST", path, body, headers)

    async def get(self, path: str) -> Answer:
        """Ask for `path`. Raises NoAnswer."""
        return await self._request("GET", path, None, None)

    async def close(self) -> None:
        """Close all connections; calls under way end with NoAnswer."""
        await self._session.close()

    async def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> Answer:
        import aiohttp

        try:
            async with self._session.request(
                method,
                self.base_url + path,
                data=body,
                headers=headers,
                proxy=self._proxy,
                allow_redirects=False,  # the key would go to another host
            ) as response:
                content = await response.read()
                if self._secret is not None and self._secret in content:
                    content = content.replace(self._secret, b"...")
                return Answer(response.status, response.headers, content)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise NotReached(f"{self.base_url} cannot be reached: {_reason(error)}") from error
        except TimeoutError as error:
            raise TimedOut(f"{self.base_url} has not answered in {self._timeout_seconds:g} s") from error
        except (aiohttp.InvalidURL, ValueError) as error:
            raise ConfigurationError(f"{self.base_url}{path} cannot be called: {_reason(error)}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(f"{self.base_url} broke the call off: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _proxy_for(base_url: str) -> str | None:
    """The proxy that the environment names for this server (HTTPS_PROXY, NO_PROXY and their like).

    aiohttp would look for it itself, and then also send what ~/.netrc has for the host.
    """
    parts = urlsplit(base_url)
    if parts.hostname is None or urllib.request.proxy_bypass(parts.hostname):
        return None
    return urllib.request.getproxies().get(parts.scheme)
