"""Small object stores in memory, over HTTP as obstore speaks it: S3's, Google's and Azure's manners.

They know what the tests ask of them, and nothing else. What real S3 does is tried with moto's server.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from batch_assets_tests.http_server import http_server

BUCKET = "bucket"
MODIFIED = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Asked:
    method: str
    key: str
    query: dict[str, list[str]]
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Told:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def fault(status: int, code: str, message: str = "") -> Told:
    """An error as S3, Google and Azure spell it."""
    text = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Told(status, text.encode())


@dataclass
class Store:
    """One bucket. `refuse` may answer instead; `heeds` says whether conditions on writes count."""

    refuse: Callable[[Asked], Told | None] = lambda asked: None
    heeds: bool = True
    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    writes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, asked: Asked) -> Told:
        with self.lock:
            self.asked.append(asked)
            return self.refuse(asked) or self._answer(asked)

    def _answer(self, asked: Asked) -> Told:
        if "list-type" in asked.query:
            return self._list(asked.query.get("prefix", [""])[0])
        if asked.query.get("comp") == ["list"]:
            return self._list_blobs(asked.query.get("prefix", [""])[0])
        if asked.query.get("comp") == ["batch"]:
            return self._delete_batch(asked.body.decode())
        if "delete" in asked.query:
            for key in asked.body.decode().split("<Key>")[1:]:
                self.objects.pop(key.split("<", 1)[0], None)
            return Told(200, b"<DeleteResult><Deleted><Key>any</Key></Deleted></DeleteResult>")
        if asked.method == "PUT":
            return self._put(asked)
        if asked.key not in self.objects:
            return fault(404, "NoSuchKey")
        if asked.method == "DELETE":
            del self.objects[asked.key]
            return Told(204)
        return self._get(asked)

    def _put(self, asked: Asked) -> Told:
        old = self.objects.get(asked.key)
        if self.heeds and not self._is_met(asked.headers, old):
            return fault(412, "PreconditionFailed")
        source = asked.headers.get("x-amz-copy-source")
        self.writes += 1
        body = self.objects[unquote(source).split("/", 1)[1]][0] if source else asked.body
        self.objects[asked.key] = (body, self.writes)
        headers = self._headers(self.objects[asked.key])
        return Told(200, f"<R><ETag>{headers['ETag']}</ETag></R>".encode() if source else b"", headers)

    def _is_met(self, headers: Message, old: tuple[bytes, int] | None) -> bool:
        generation = headers.get("x-goog-if-generation-match")
        if generation is not None and int(generation) != (old[1] if old else 0):
            return False
        tag = headers.get("If-Match")
        if tag is not None and (old is None or tag != self._headers(old)["ETag"]):
            return False
        return not (headers.get("If-None-Match") == "*" and old)

    def _headers(self, found: tuple[bytes, int]) -> dict[str, str]:
        return {
            "ETag": f'"{hashlib.md5(found[0]).hexdigest()}"',
            "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
            "x-goog-generation": str(found[1]),
        }

    def _get(self, asked: Asked) -> Told:
        found = self.objects[asked.key]
        if not (span := asked.headers.get("Range")):
            return Told(200, found[0], self._headers(found))
        first, last = (int(number) for number in span.removeprefix("bytes=").split("-"))
        part = found[0][first : last + 1]
        place = {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(found[0])}"}
        return Told(206, part, self._headers(found) | place)

    def _list(self, prefix: str) -> Told:
        items = "".join(
            f"<Contents><Key>{key}</Key><LastModified>{MODIFIED}</LastModified>"
            f"<ETag>{self._headers(found)['ETag']}</ETag><Size>{len(found[0])}</Size></Contents>"
            for key, found in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return Told(
            200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode()
        )

    def _list_blobs(self, prefix: str) -> Told:
        items = "".join(
            f"<Blob><Name>{key}</Name><Properties><Last-Modified>{self._headers(found)['Last-Modified']}"
            f"</Last-Modified><Content-Length>{len(found[0])}</Content-Length><Content-Type>any</Content-Type>"
            f"<Etag>{self._headers(found)['ETag']}</Etag></Properties></Blob>"
            for key, found in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return Told(200, f"<EnumerationResults><Blobs>{items}</Blobs></EnumerationResults>".encode())

    def _delete_batch(self, body: str) -> Told:
        lines = [line for line in body.split("\r\n") if line.startswith("DELETE ")]
        parts = []
        for number, line in enumerate(lines):
            gone = self.objects.pop(unquote(line.split()[1]).split(f"/{BUCKET}/", 1)[1], None) is None
            status = "404 The specified blob does not exist." if gone else "202 Accepted"
            parts.append(
                f"--part\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
                f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n\r\n"
            )
        told = "".join(parts) + "--part--\r\n"
        return Told(202, told.encode(), {"Content-Type": "multipart/mixed; boundary=part"})


@contextlib.contextmanager
def serving(store: Store) -> Iterator[str]:
    """The address of the store, which is there as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            # Azure's account stands before the bucket.
            key = unquote(url.path).removeprefix("/account").removeprefix(f"/{BUCKET}").removeprefix("/")
            query = parse_qs(url.query, keep_blank_values=True)
            told = store.answer(Asked(self.command, key, query, self.headers, body))
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(told.body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http_server(Handler) as url:
        yield url


def lead_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the environment of all three kinds at the address; what fails is tried once."""
    account = {"gcs_base_url": address, "disable_oauth": True}
    account |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    settings = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account),
        "GOOGLE_ALLOW_HTTP": "true",
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_STORAGE_ACCOUNT_KEY": "a2V5",
        "AZURE_STORAGE_ENDPOINT": f"{address}/account",
        "AZURE_ALLOW_HTTP": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    # Nothing is waited for.
    monkeypatch.setattr("batch_assets.storage.reach.FIRST_ANSWER_SECONDS", 0.0)
    monkeypatch.setattr("batch_assets.storage.reach.AWAY_SECONDS", 0.0)
