"""What the doors of requests take, refuse and show, with the gate before them and nobody who computes."""

import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from batch_assets.components.declared import Declared
from batch_assets.server.application import create_application
from batch_assets.server.connections import create_server
from batch_assets.server.gate import Gate, is_streamed
from batch_assets.server.limits import Limits
from batch_assets.server.pipelines import RequestPipelines
from batch_assets.server.request_doors import taking_requests
from batch_assets.server.tokens import OPERATOR, Tokens
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets_tests.fakes import fake_vector
from batch_assets_tests.requests.builders import compute, make_settings, open_asks, open_ledger, open_requests
from batch_assets_tests.waiting import PATIENCE_SECONDS

MOST_BODY, MOST_OPEN = 2000, 12
NAMES = {"o" * 16: OPERATOR, "a" * 16: "alice", "b" * 16: "bob"}


class Client:
    """Asks a server over the folder's databases."""

    def __init__(self, folder: Path, url: str, settings: PipelineSettings) -> None:
        self.folder = folder
        self.url = url
        self.settings = settings

    def ask(
        self, method: str, path: str, body: bytes | None = None, token: str | None = "a" * 16, **headers: str
    ) -> tuple[int, Any]:
        """(status, JSON or text)"""
        given = {"x-api-key": token} if token is not None else {}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, body, given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                status, said = answer.status, answer.read()
        except urllib.error.HTTPError as answer:
            status, said = answer.code, answer.read()
        try:
            return status, json.loads(said)
        except ValueError:
            return status, said.decode()

    def post(self, body: bytes, **more: Any) -> tuple[int, Any]:
        return self.ask("POST", "/job", body, **{"Content_Type": "application/json", **more})

    def compute(self) -> None:
        database = open_requests(self.folder)
        compute(open_asks(self.folder, self.settings), database)
        database.dispose()


@contextlib.contextmanager
def serving(folder: Path, rules: Mapping[str, Any] | None = None, **webhooks: Any) -> Iterator[Client]:
    """A server over the folder's databases, which computes nothing."""
    settings = make_settings(folder, {"max_body_bytes": MOST_BODY, "max_open": MOST_OPEN, **(rules or {})})
    ledger, database = open_ledger(folder), open_requests(folder)
    declared = Declared({settings.name: settings})
    pipelines = RequestPipelines(lambda: declared)
    application = create_application(ledger, lambda: declared, lambda: None)
    pipelines.all()
    with (
        taking_requests(application, pipelines, database, ledger, **webhooks),
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        limits = Limits()
        gate = Gate(application, Tokens(NAMES), limits, pipelines.longest_body)
        server = create_server(gate, limits, gate.body_limit, is_streamed)
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
        thread.start()
        yield Client(folder, f"http://127.0.0.1:{listening.getsockname()[1]}", settings)
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path) as client:
        yield client


def test_a_record_is_taken_and_its_result_found(client: Client) -> None:
    status, taken = client.post(b'{"text": "hello, \\"you\\"\\n", "n": 1}')
    assert (status, taken["status"]) == (202, "queued")
    path = f"/job/{taken['job_id']}"
    assert taken["url"] == client.url + path
    assert client.ask("GET", path)[1]["status"] == "queued"
    status, plain = client.post(b"zweite\nZeile", Content_Type="text/plain")
    assert status == 202
    client.compute()
    job = client.ask("GET", path)[1]
    assert (job["status"], job["error"], job["pipeline"]) == ("completed", None, "asks")
    assert job["result"]["embedding"] == pytest.approx(fake_vector('hello, "you"\n').tolist())
    assert client.ask("POST", f"{path}/cancel")[0] == 409
    lines = client.ask("GET", f"/jobs/results?window={job['window']}")[1].splitlines()
    assert [json.loads(line)["job_id"] for line in lines] == [taken["job_id"], plain["job_id"]]
    assert json.loads(lines[0]) == job


def test_another_tenants_is_not_there(client: Client) -> None:
    _, taken = client.post(b'{"text": "mine"}')
    path = f"/job/{taken['job_id']}"
    bob, operator = "b" * 16, "o" * 16
    assert client.ask("GET", path, token=bob) == (404, {"detail": f"there is no job {taken['job_id']!r}"})
    assert client.ask("POST", f"{path}/cancel", token=bob)[0] == 404
    assert client.ask("GET", "/jobs", token=bob) == (200, {"jobs": [], "has_more": False})
    assert client.ask("GET", path, token=operator)[0] == 200
    assert len(client.ask("GET", "/jobs", token=operator)[1]["jobs"]) == 1
    client.compute()
    window = client.ask("GET", path)[1]["window"]
    assert client.ask("GET", f"/jobs/results?window={window}", token=bob)[0] == 404
    assert [client.ask("GET", path, token=token)[0] for token in (None, "c" * 16)] == [401, 401]
    assert client.ask("POST", "/trigger/asks")[0] == 403
    assert client.ask("GET", "/metrics")[0] == 403
    assert "batch_assets_requests_accepted_total" in client.ask("GET", "/metrics", token=operator)[1]


def test_a_key_makes_one_job(client: Client) -> None:
    status, first = client.post(b'{"text": "a"}', Idempotency_Key="k")
    assert status == 202
    assert client.post(b'{"text": "a"}', Idempotency_Key="k") == (200, first)
    assert client.post(b'{"text": "b"}', Idempotency_Key="k")[0] == 422
    assert client.post(b'{"text": "b"}', Idempotency_Key="k", token="b" * 16)[0] == 202
    assert client.post(b'{"text": "b"}', Idempotency_Key="x" * 256)[0] == 400


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"text": ""}', {}, 422),
        (b"nonsense", {}, 422),
        (b'{"text": "\xff"}', {}, 422),
        (b'{"text": "a"}', {"Content_Type": "image/png"}, 415),
        (b'{"text": "a"}', {"Content_Encoding": "gzip"}, 415),
        (b'{"text": "a"}', {"X_Webhook_Url": "https://example.com"}, 422),
        (b'{"text": "%s"}' % (b"x" * MOST_BODY), {}, 413),
        (b'{"text": "%s"}' % (b"x" * 100_000), {}, 413),
    ],
)
def test_what_cannot_be_taken_is_refused(
    client: Client, body: bytes, headers: dict[str, str], status: int
) -> None:
    found, said = client.post(body, **headers)
    assert found == status
    assert said["detail"]
    assert client.ask("GET", "/jobs")[1]["jobs"] == []


def test_no_more_are_open_than_may_be(client: Client) -> None:
    statuses = [client.post(b'{"text": "a"}')[0] for _ in range(MOST_OPEN + 2)]
    assert statuses == [202] * MOST_OPEN + [429] * 2
    assert client.ask("POST", "/jobs", b'{"text": "a"}\n' * (MOST_OPEN + 1))[0] == 413


def test_many_records_come_line_by_line(client: Client) -> None:
    body = b'{"text": "a"}\n\nnope\n{"text": "b"}'
    status, told = client.ask("POST", "/jobs", body, Idempotency_Key="k")
    assert status == 202
    assert [(one["line"], "job_id" in one) for one in told["jobs"]] == [(1, True), (3, False), (4, True)]
    assert told["jobs"][1]["error"]["code"] == "not_json"
    assert client.ask("POST", "/jobs", body, Idempotency_Key="k")[1] == told
    assert client.ask("POST", "/jobs", b"\n")[0] == 422


def test_jobs_are_listed_newest_first_page_by_page(client: Client) -> None:
    ids = [client.post(b'{"text": "%d"}' % number)[1]["job_id"] for number in range(5)]
    assert client.ask("POST", f"/job/{ids[0]}/cancel")[1]["status"] == "cancelled"
    found: list[str] = []
    after = ""
    while True:
        page = client.ask("GET", f"/jobs?limit=2{after}")[1]
        found += [job["job_id"] for job in page["jobs"]]
        if not page["has_more"]:
            break
        after = f"&after={found[-1]}"
    assert found == ids[::-1]
    client.compute()
    assert [job["job_id"] for job in client.ask("GET", "/jobs?status=cancelled")[1]["jobs"]] == ids[:1]
    assert len(client.ask("GET", "/jobs?status=completed")[1]["jobs"]) == 4
    assert client.ask("GET", "/jobs?status=odd")[0] == 422
    assert client.ask("GET", "/jobs?limit=0")[0] == 422


@pytest.mark.parametrize(
    "path", ["/job/nothing", "/job/%00", "/jobs/results?window=../../etc", "/jobs?pipeline=other"]
)
def test_what_is_not_there_is_told(client: Client, path: str) -> None:
    assert client.ask("GET", path)[0] == 404
