"""One attempt at a file on the web, by HTTP: bounded in bytes, in seconds and in where it may lead.

How often to try, and which hosts to leave alone, is decided in `fetching.py`, which imports this
module only where there is a URL to fetch.
"""

import email.utils
import socket
import time
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions

from batch_assets.worker.addresses import PrivateAddress
from batch_assets.worker.connections import Attempts, open_session
from batch_assets.worker.not_fetched import (
    BAD_URL,
    FETCH_ERROR,
    FETCH_TIMEOUT,
    IMAGE_MISSING,
    IMAGE_TOO_LARGE,
    PRIVATE_ADDRESS,
    NotFetched,
)

CONNECT_SECONDS = 10.0
TOTAL_SECONDS = 30.0
MOST_REDIRECTS = 5
CHUNK_BYTES = 2**16
AGAIN = {408, 425, 429}
"""What a 4xx says that is about now, not about the file; so do all of 5xx."""
REDIRECTS = {301, 302, 303, 307, 308}


def download(
    url: str, *, most_bytes: int, allow_private: bool, attempts: Attempts, wait_for_turn: Callable[[], None]
) -> bytes:
    """The file at `url`, which is http:// or https://, redirects followed. Raises NotFetched.

    Called when its turn has come; `wait_for_turn` waits for that of each redirect, which takes
    nothing from its seconds.
    """
    session, left = open_session(allow_private), TOTAL_SECONDS
    for _ in range(MOST_REDIRECTS + 1):
        started = time.monotonic()
        found = _ask(session, url, most_bytes, attempts, left)
        if isinstance(found, bytes):
            return found
        left = max(left - (time.monotonic() - started), 0.0)
        # Redirects are followed here, so that each passes the same checks.
        url = _redirected(url, found)
        wait_for_turn()
    raise NotFetched(FETCH_ERROR, f"it redirects more than {MOST_REDIRECTS} times")


def _ask(
    session: requests.Session, url: str, most_bytes: int, attempts: Attempts, seconds: float
) -> bytes | str:
    """One request: the file, or where it redirects to."""
    host = urlsplit(url).hostname or ""
    content, failure = b"", None
    with attempts.attempt(seconds) as attempt:
        try:
            content = _answer(session, url, most_bytes)
        except (
            NotFetched,
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            ValueError,
        ) as error:
            failure = _explained(error, host)
        except PrivateAddress as error:
            allow = "set source.allow_private_addresses: true (--allow-private-addresses) to fetch it"
            text = f"{error}: no public address; {allow}"
            raise NotFetched(PRIVATE_ADDRESS, text) from None
        # What is cut off by hanging up may look like a short file.
        if attempt.ended:
            raise _timeout(host)
    if failure is not None:
        raise failure from None
    return content


def _redirected(url: str, target: str) -> str:
    try:
        url = urljoin(url, target)
        fetchable = urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname
    except ValueError:
        url, fetchable = target, None
    if not fetchable:
        raise NotFetched(BAD_URL, f"it redirects to {url[:200]!r}, which is no http:// or https://")
    return url


def _answer(session: requests.Session, url: str, most_bytes: int) -> bytes | str:
    with session.get(
        url, timeout=(CONNECT_SECONDS, TOTAL_SECONDS), stream=True, allow_redirects=False
    ) as answer:
        target = answer.headers.get("Location")
        return target if answer.status_code in REDIRECTS and target else _body(answer, most_bytes)


def _explained(error: Exception, host: str) -> NotFetched:
    if isinstance(error, NotFetched):
        return error
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema | UnicodeError):
        return NotFetched(BAD_URL, f"no URL to fetch: {error}")
    if isinstance(error, requests.Timeout):
        return _timeout(host)
    known = not _unknown_name(error)
    return NotFetched(FETCH_ERROR, f"{host} cannot be asked: {_reason(error)}", again=known, down=known)


def _timeout(host: str) -> NotFetched:
    limits = f"{CONNECT_SECONDS:g} s to connect, {TOTAL_SECONDS:g} s in all"
    return NotFetched(FETCH_TIMEOUT, f"{host} does not deliver in time ({limits})", again=True, down=True)


def _body(answer: requests.Response, most_bytes: int) -> bytes:
    host, status = urlsplit(answer.url).hostname, answer.status_code
    if status in AGAIN or status >= 500:
        text = f"{host} answers HTTP {status}"
        raise NotFetched(FETCH_ERROR, text, again=True, pause=_retry_after(answer), down=status >= 500)
    if status >= 400:
        raise NotFetched(IMAGE_MISSING, f"{host} answers HTTP {status}")
    if not 200 <= status < 300:
        raise NotFetched(FETCH_ERROR, f"{host} answers HTTP {status}, which is no file")
    length = answer.headers.get("Content-Length", "")
    read = bytearray()
    too_large = length.isdecimal() and int(length) > most_bytes
    if not too_large:
        for chunk in answer.iter_content(CHUNK_BYTES):
            read += chunk
            if len(read) > most_bytes:
                too_large = True
                break
    if too_large:
        # What is compressed on its way may say less than it has.
        said = f"{int(length):,}" if length.isdecimal() and int(length) > most_bytes else "more"
        text = f"the file has {said} bytes, over the {most_bytes:,} of shards.max_record_bytes"
        raise NotFetched(IMAGE_TOO_LARGE, text)
    return bytes(read)


def _retry_after(answer: requests.Response) -> float | None:
    """Seconds to wait by the server's word: a number, or a date."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    date = email.utils.parsedate_to_datetime(value).timestamp() if _is_date(value) else None
    return None if date is None else max(0.0, date - time.time())


def _is_date(value: str) -> bool:
    return email.utils.parsedate(value) is not None


def _unknown_name(error: BaseException) -> bool:
    """Whether the host does not exist, as far as the name servers know."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, socket.gaierror):
            return seen.errno == socket.EAI_NONAME
        seen = seen.__cause__ or seen.__context__
    return False


def _reason(error: BaseException) -> str:
    """The innermost cause; what stands around it repeats the URL, which may hold a signature."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200]
