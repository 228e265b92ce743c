"""Connections that go to public addresses only, and that can be hung up on from outside.

Both are below what `requests` offers, so they are put under it as urllib3's own connections. What
is asked for over them is in `web.py`.
"""

import functools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from batch_assets.worker.addresses import public_addresses

MOST_ADDRESSES = 3
CONNECTIONS = 64
HEADERS = {"User-Agent": "batch-assets", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}


class Attempts:
    """Attempts under way, in any thread; `stop` ends them all, and those that begin behind it."""

    def __init__(self) -> None:
        self._live: set[Attempt] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Hang up on every server."""
        with self._lock:
            self._stopped = True
            live = list(self._live)
        for attempt in live:
            attempt.hang_up()

    @contextmanager
    def attempt(self, seconds: float) -> Iterator["Attempt"]:
        """One attempt by this thread, which is hung up when so many seconds are over."""
        attempt = Attempt()
        timer = threading.Timer(seconds, attempt.hang_up)
        timer.daemon = True
        timer.start()
        with self._lock:
            self._live.add(attempt)
            attempt.ended = self._stopped
        _thread.attempt = attempt
        try:
            yield attempt
        finally:
            _thread.attempt = None
            timer.cancel()
            with self._lock:
                self._live.discard(attempt)


class Attempt:
    """The socket that an attempt is reading from, once there is one; a slow server holds it no longer."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.ended = False

    def hang_up(self) -> None:
        self.ended = True
        if self.socket is not None:
            with suppress(OSError, ValueError):
                # Of the plain socket: an SSLSocket's own would pull the session away from its reader.
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


_thread = threading.local()


class _Connection(HTTPConnection):
    """Tells its thread's attempt which socket it reads from."""

    def getresponse(self) -> Any:
        _note_socket(self.sock)
        return super().getresponse()


class _SecureConnection(HTTPSConnection):
    def getresponse(self) -> Any:
        _note_socket(self.sock)
        return super().getresponse()


def _note_socket(sock: Any) -> None:
    attempt = getattr(_thread, "attempt", None)
    if attempt is not None:
        attempt.socket = sock
        if attempt.ended:
            attempt.hang_up()


class _PublicConnection(_Connection):
    """Connects to an address that was checked, not to a name that may resolve otherwise the next time."""

    def _new_conn(self) -> socket.socket:
        return _connect_publicly(self, super()._new_conn)


class _PublicSecureConnection(_SecureConnection):
    def _new_conn(self) -> socket.socket:
        return _connect_publicly(self, super()._new_conn)


def _connect_publicly(connection: HTTPConnection, connect: Any) -> socket.socket:
    """Connect while the host is an address; whom the certificate must name is read afterwards."""
    name = connection.host
    *others, last = public_addresses(name, connection.port)[:MOST_ADDRESSES]
    try:
        for connection.host in others:
            with suppress(urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
                return connect()
        connection.host = last
        return connect()
    finally:
        connection.host = name


class _Adapter(HTTPAdapter):
    """Plain connections, or ones that go to public addresses only; `requests` makes one per scheme."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        super().__init__(pool_connections=CONNECTIONS, pool_maxsize=CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _pool(HTTPConnectionPool, _Connection if self._allow_private else _PublicConnection),
            "https": _pool(
                HTTPSConnectionPool, _SecureConnection if self._allow_private else _PublicSecureConnection
            ),
        }

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        url = urlsplit(request.url or "")
        if not self._allow_private and requests.utils.select_proxy(
            str(request.url), kwargs.get("proxies") or {}
        ):
            # The proxy makes the connection: here the name can only be looked at.
            public_addresses(url.hostname or "", url.port or 443)
        return super().send(request, *args, **kwargs)


def _pool(base: type[HTTPConnectionPool], connection: type[HTTPConnection]) -> type[HTTPConnectionPool]:
    return type(base.__name__, (base,), {"ConnectionCls": connection})


@functools.cache
def open_session(allow_private: bool) -> requests.Session:
    """One for all threads: without cookies nothing in it changes."""
    session = requests.Session()
    session.headers.update(HEADERS)
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.auth = _anonymous  # else a default entry of ~/.netrc would go to every host
    session.mount("http://", _Adapter(allow_private))
    session.mount("https://", _Adapter(allow_private))
    return session


def _anonymous(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
