"""A web hook on 127.0.0.1, and a notification to send there."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from batch_assets.notifications.base import Notification
from batch_assets_tests.http_server import http_server

NOTICE = Notification(
    key="job:texts:g0001-00042:ba-texts-7",
    title="texts: the job of shard g0001-00042 failed",
    happened="Job ba-texts-7: <expired> & gone",
    meaning="The rest is tried again by itself.",
    command="batch-assets status texts",
    pipeline="texts",
    severity="warning",
)
SECRET = "T000-B000-very-secret"


@dataclass
class Hook:
    """What was posted, and the statuses to answer with: the last one goes on for ever."""

    url: str
    statuses: list[int] = field(default_factory=lambda: [200])
    before: Callable[[], object] = lambda: None
    bodies: list[Any] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    credentials: list[str | None] = field(default_factory=list)


@contextlib.contextmanager
def hook() -> Iterator[Hook]:
    """A server that ends with the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.bodies.append(body)
            found.paths.append(self.path)
            found.credentials.append(self.headers["Authorization"])
            found.before()
            status = found.statuses.pop(0) if len(found.statuses) > 1 else found.statuses[0]
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Retry-After", "3600")
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(SECRET.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http_server(Handler) as url:
        found = Hook(f"{url}/services/{SECRET}")
        yield found
