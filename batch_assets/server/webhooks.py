"""Telling clients of their requests' ends: signed as Standard Webhooks asks, at least once, to public addresses only.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. What is due, and since
when, is in `requests/due_ends.py`; what is told of it, in `ends.py`.
"""

import base64
import binascii
import hashlib
import hmac
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from batch_assets.errors import ConfigurationError
from batch_assets.plain_text import plain_logger
from batch_assets.requests.due_ends import DueEnd
from batch_assets.retry_policy import WEBHOOK_PAUSES_SECONDS
from batch_assets.server.ends import Ends
from batch_assets.server.tokens import WEBHOOK_SECRET_VARIABLE
from batch_assets.worker.addresses import PrivateAddress, public_addresses

HEADER = "X-Webhook-Url"
MOST_CHARACTERS = 2_000
SECRET_BYTES = range(24, 65)
"""What the specification asks for."""
AT_ONCE, AT_ONCE_TO_A_RECEIVER = 64, 8
LOOK_SECONDS, CONNECT_SECONDS, ANSWER_SECONDS = 1.0, 5.0, 15.0
GONE = 410
logger = plain_logger(__name__)


def read_secret() -> bytes | None:
    """The key that signs, from the environment; None where none is set. Raises ConfigurationError."""
    written = os.environ.get(WEBHOOK_SECRET_VARIABLE, "")
    if not written:
        return None
    try:
        secret = base64.b64decode(written.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) not in SECRET_BYTES:
        raise ConfigurationError(
            f"{WEBHOOK_SECRET_VARIABLE}: is not whsec_ and the base64 of 24 to 64 bytes; make one with: "
            f"export {WEBHOOK_SECRET_VARIABLE}=whsec_$(openssl rand -base64 32)"
        )
    return secret


def why_refused(where: str, url: str, *, can_sign: bool, allow_private: bool) -> str | None:
    """Why no end is told at this URL; None where it is. Resolves its host, which may take seconds.

    `where` is how the client names it.
    """
    if not can_sign:
        return (
            f"{where}: this server has no secret to sign with; set {WEBHOOK_SECRET_VARIABLE} where it is started, or "
            "ask how it stands"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return f"{where}: {url[:100]!r} is no URL"
    if parts.scheme not in ("http", "https") or not host or len(url) > MOST_CHARACTERS or not url.isascii():
        told = f"{where}: {url[:100]!r}: name an http:// or https:// URL, of ASCII"
        return f"{told} and {MOST_CHARACTERS:,} characters at most"
    if "@" in parts.netloc:
        return f"{where}: the URL names a user; what comes is signed, so check that instead"
    try:
        if not allow_private:
            public_addresses(host, port or 443)
    except PrivateAddress as error:
        return (
            f"{where}: {error}, and ends are told at public addresses only; start `batch-assets serve` with "
            "--allow-private-webhooks to allow others"
        )
    except OSError:
        return None  # the name may be known later, and is looked at before each try
    return None


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`, version 1: HMAC-SHA256 over id, timestamp and body."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


class WebhookSender:
    """A thread that sees which ends are due, and others that tell of them. Used as a context."""

    def __init__(self, ends: Sequence[Ends], secret: bytes, *, allow_private: bool) -> None:
        from batch_assets.worker.connections import Attempts, open_session

        self._ends = ends
        self._secret = secret
        self._session = open_session(allow_private)
        self._attempts = Attempts()
        self._sending: Counter[str] = Counter()
        """How many are being sent to each receiver."""
        self._sent = threading.Condition()
        self._said = ""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="webhooks", daemon=True)

    def __enter__(self) -> "WebhookSender":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ending.set()
        self._attempts.stop()
        with self._sent:
            self._sent.notify_all()
        self._thread.join()

    def _work(self) -> None:
        looked = float("-inf")
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook") as pool:
            while not self._ending.is_set():
                begun = 0
                try:
                    if time.monotonic() - looked >= LOOK_SECONDS:
                        looked = time.monotonic()
                        for ends in self._ends:
                            ends.look()
                    begun = sum(self._begin(pool, ends) for ends in self._ends)
                    self._said = ""
                except Exception as error:  # the database is away
                    self._say(f"{type(error).__name__}: {error}")
                with self._sent:
                    if not begun and not self._ending.is_set():
                        self._sent.wait(LOOK_SECONDS)

    def _say(self, failure: str) -> None:
        """Tell what keeps all of them waiting, once as long as it stays the same."""
        if failure != self._said:
            logger.error("webhooks wait: %s; trying again", failure)
        self._said = failure

    def _begin(self, pool: ThreadPoolExecutor, ends: Ends) -> int:
        """Begin to send what is due, as far as threads are free; how many."""
        with self._sent:
            sending = Counter(self._sending)
        due = ends.due.take(AT_ONCE - sending.total(), sending, AT_ONCE_TO_A_RECEIVER)
        for end in due:
            with self._sent:
                self._sending[end.receiver] += 1
            pool.submit(self._send_next, ends, end)
        return len(due)

    def _send_next(self, ends: Ends, end: DueEnd[Any]) -> None:
        try:
            self._send(ends, end)
        except Exception as error:  # the database is away: it is sent again when the claim is over
            logger.error("%s: whether its end was told is not noted: %s", end.id, error)
        finally:
            with self._sent:
                self._sending[end.receiver] -= 1
                self._sending += Counter()  # without those that have none
                self._sent.notify_all()

    def _send(self, ends: Ends, end: DueEnd[Any]) -> None:
        """Tell of one end. Whatever fails is tried again later, for as long as that is worth it."""
        host = urlsplit(end.url).hostname
        try:
            status = self._post(end, ends.message(end))
            if 200 <= status < 300:
                ends.due.note_told(end)
                return
            failure = f"{host} answers HTTP {status}"
        except Exception as error:
            if self._ending.is_set():
                return  # another server, or the next one, takes it
            status, failure = 0, f"{host}: {type(error).__name__}"
        if status == GONE or end.tries >= len(WEBHOOK_PAUSES_SECONDS):
            told = "%s: the end of %s is not told: %s, after %d tries"
            logger.error(told, end.pipeline, end.id, failure, end.tries + 1)
            ends.due.give_up(end)
            return
        pause = WEBHOOK_PAUSES_SECONDS[end.tries] * random.uniform(1.0, 1.1)
        level = logging.WARNING if end.tries else logging.INFO
        logger.log(
            level, "%s: the end of %s is told again in %.0f s: %s", end.pipeline, end.id, pause, failure
        )
        ends.due.postpone(end, pause)

    def _post(self, end: DueEnd[Any], body: bytes) -> int:
        """The status that the receiver answers. Redirects are not followed."""
        now = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "Accept": "*/*",
            "webhook-id": end.id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(self._secret, end.id, now, body),
        }
        with (
            self._attempts.attempt(CONNECT_SECONDS + ANSWER_SECONDS),
            self._session.post(
                end.url,
                data=body,
                headers=headers,
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as answer,
        ):
            return answer.status_code
