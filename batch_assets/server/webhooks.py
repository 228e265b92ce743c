"""Telling clients of their requests' ends: signed as Standard Webhooks asks, at least once, to public addresses only.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. What is due, and since
when, is in `requests/webhooks.py`.
"""

import base64
import binascii
import datetime
import hashlib
import hmac
import logging
import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import orjson

from batch_assets.errors import BatchAssetsError, ConfigurationError
from batch_assets.plain_text import plain_logger
from batch_assets.requests.results import CANCELLED, COMPLETED, FAILED, Results
from batch_assets.requests.webhooks import DueWebhook, Webhooks
from batch_assets.retry_policy import WEBHOOK_PAUSES_SECONDS
from batch_assets.server.jobs import listed
from batch_assets.server.pipelines import RequestPipelines
from batch_assets.server.tokens import WEBHOOK_SECRET_VARIABLE
from batch_assets.worker.addresses import PrivateAddress, public_addresses

HEADER = "X-Webhook-Url"
MOST_CHARACTERS = 2_000
SECRET_BYTES = range(24, 65)
"""What the specification asks for."""
AT_ONCE, AT_ONCE_TO_A_RECEIVER = 64, 8
WINDOWS_AT_ONCE = 100
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


def why_refused(url: str, *, allow_private: bool) -> str | None:
    """Why no end is told at this URL; None where it is. Resolves its host, which may take seconds."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return f"{HEADER}: {url[:100]!r} is no URL"
    if parts.scheme not in ("http", "https") or not host or len(url) > MOST_CHARACTERS or not url.isascii():
        told = f"{HEADER}: {url[:100]!r}: name an http:// or https:// URL, of ASCII"
        return f"{told} and {MOST_CHARACTERS:,} characters at most"
    if "@" in parts.netloc:
        return f"{HEADER}: the URL names a user; what comes is signed, so check that instead"
    try:
        if not allow_private:
            public_addresses(host, port or 443)
    except PrivateAddress as error:
        return (
            f"{HEADER}: {error}, and ends are told at public addresses only; start `batch-assets serve` with "
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
    """A thread that sees which requests have ended, and others that tell of it. Used as a context."""

    def __init__(
        self,
        webhooks: Webhooks,
        results: Results,
        pipelines: RequestPipelines,
        secret: bytes,
        *,
        allow_private: bool,
    ) -> None:
        from batch_assets.worker.connections import Attempts, open_session

        self._webhooks = webhooks
        self._results = results
        self._pipelines = pipelines
        self._secret = secret
        self._session = open_session(allow_private)
        self._attempts = Attempts()
        self._looked_at: dict[str, str] = {}
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
                        for pipeline in self._pipelines.names():
                            self._look(pipeline)
                    begun = self._begin(pool)
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

    def _look(self, pipeline: str) -> None:
        """See which requests have ended, of a bounded number of windows; the next look goes on behind them."""
        windows = self._webhooks.open_windows(pipeline, self._looked_at.get(pipeline, ""), WINDOWS_AT_ONCE)
        self._looked_at[pipeline] = windows[-1] if len(windows) == WINDOWS_AT_ONCE else ""
        self._webhooks.note_ended(pipeline, self._results.ended_segments(pipeline, windows))

    def _begin(self, pool: ThreadPoolExecutor) -> int:
        """Begin to send what is due, as far as threads are free; how many."""
        with self._sent:
            sending = Counter(self._sending)
        due = self._webhooks.take(AT_ONCE - sending.total(), sending, AT_ONCE_TO_A_RECEIVER)
        for webhook in due:
            with self._sent:
                self._sending[webhook.receiver] += 1
            pool.submit(self._send_next, webhook)
        return len(due)

    def _send_next(self, webhook: DueWebhook) -> None:
        try:
            self._send(webhook)
        except Exception as error:  # the database is away: it is sent again when the claim is over
            logger.error("job %s: whether its end was told is not noted: %s", webhook.request.id, error)
        finally:
            with self._sent:
                self._sending[webhook.receiver] -= 1
                self._sending += Counter()  # without those that have none
                self._sent.notify_all()

    def _send(self, webhook: DueWebhook) -> None:
        """Tell of one end. Whatever fails is tried again later, for as long as that is worth it."""
        host = urlsplit(webhook.url).hostname
        try:
            status = self._post(webhook)
            if 200 <= status < 300:
                self._webhooks.note_told(webhook)
                return
            failure = f"{host} answers HTTP {status}"
        except Exception as error:
            if self._ending.is_set():
                return  # another server, or the next one, takes it
            status, failure = 0, f"{host}: {type(error).__name__}"
        if status == GONE or webhook.tries >= len(WEBHOOK_PAUSES_SECONDS):
            logger.error(
                "%s: the end of job %s is not told: %s, after %d tries",
                webhook.request.pipeline,
                webhook.request.id,
                failure,
                webhook.tries + 1,
            )
            self._webhooks.give_up(webhook)
            return
        pause = WEBHOOK_PAUSES_SECONDS[webhook.tries] * random.uniform(1.0, 1.1)
        logger.log(
            logging.WARNING if webhook.tries else logging.INFO,
            "%s: the end of job %s is told again in %.0f s: %s",
            webhook.request.pipeline,
            webhook.request.id,
            pause,
            failure,
        )
        self._webhooks.postpone(webhook, pause)

    def _post(self, webhook: DueWebhook) -> int:
        """The status that the receiver answers. Redirects are not followed."""
        body, now = self._message(webhook), int(time.time())
        headers = {
            "Content-Type": "application/json",
            "Accept": "*/*",
            "webhook-id": webhook.request.id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(self._secret, webhook.request.id, now, body),
        }
        with (
            self._attempts.attempt(CONNECT_SECONDS + ANSWER_SECONDS),
            self._session.post(
                webhook.url,
                data=body,
                headers=headers,
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as answer,
        ):
            return answer.status_code

    def _message(self, webhook: DueWebhook) -> bytes:
        """What is told: the job without its result, which is asked for at `GET /job/ID`."""
        outcome = self._results.without_result(webhook.request)
        if outcome.status not in (COMPLETED, FAILED, CANCELLED):
            raise NotEnded(webhook.request.id)
        told = {
            "type": f"job.{outcome.status}",
            "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "data": listed(webhook.request, outcome.status) | {"error": outcome.error},
        }
        return orjson.dumps(told)


class NotEnded(BatchAssetsError):
    """The request is computed again meanwhile."""
