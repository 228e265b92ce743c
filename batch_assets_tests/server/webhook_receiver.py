"""A receiver of webhooks, which takes nothing that is signed wrongly."""

import base64
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from standardwebhooks import Webhook

from batch_assets_tests.http_server import http_server

SECRET = secrets.token_bytes(32)


@dataclass
class Receiver:
    """Checks each message's signature as the specification's own library does, and answers these statuses, then 204."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    heard: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    received: list[tuple[bytes, dict[str, str]]] = field(default_factory=list)

    def jobs(self) -> list[str]:
        return [message["data"]["job_id"] for _, message in self.heard]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = dict(self.headers)
            message = Webhook(base64.b64encode(SECRET).decode()).verify(body, headers)
            found.received.append((body, headers))
            found.heard.append((self.headers["webhook-id"], message))
            status = found.statuses.pop(0) if found.statuses else 204
            self.send_response(status)
            if status == 307:
                self.send_header("Location", f"{found.url}/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with http_server(Handler) as url:
        found.url = url
        yield found
