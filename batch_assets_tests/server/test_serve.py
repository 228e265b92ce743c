"""The real `batch-assets serve`: who may order, what is answered, and that an order outlives the server."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batch_assets_tests.command import Machine, make_machine
from batch_assets_tests.waiting import PATIENCE_SECONDS, wait_until

TOKEN = "0123456789abcdef-0123456789"
PIPELINE = """
type: batch_assets.components.EmbeddingPipeline
attributes:
  source: {{uri: {folder}/nowhere}}
  output: {{root: {folder}/out}}
"""


@dataclass
class Client:
    """Asks one server."""

    url: str

    def ask(
        self,
        method: str,
        path: str,
        key: str | None = None,
        token: str | None = TOKEN,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """(status, JSON)"""
        url = path if path.startswith("http") else self.url + path
        given = {"Authorization": f"Bearer {token}"} if token is not None else {}
        given |= {"Idempotency-Key": key} if key is not None else {}
        request = urllib.request.Request(url, body, {**given, **(headers or {})}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as answer:
            return answer.code, json.load(answer)

    def until_ended(self, path: str) -> dict[str, Any]:
        """The order, once it has ended."""
        orders: list[dict[str, Any]] = []

        def ended() -> bool:
            status, order = self.ask("GET", path)
            assert status == 200
            orders.append(order)
            return order["state"] in ("done", "failed")

        wait_until(ended, lambda: orders[-1])
        return orders[-1]


@contextmanager
def serving(machine: Machine, defs: Path) -> Iterator[tuple[Client, Callable[[], None]]]:
    """A server, and what ends it with kill -9; by the end of the block it has ended one way or the other."""
    process = machine.start("serve", "--port", 0, "--defs", defs)
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", process.first_line())
        assert found is not None, process.communicate(timeout=PATIENCE_SECONDS)
        yield Client(found[0]), process.kill
    finally:
        process.terminate()
        stderr = process.communicate(timeout=PATIENCE_SECONDS)[1]
        assert TOKEN not in stderr
        assert process.returncode in (130, -9)


@pytest.fixture
def defs(tmp_path: Path) -> Path:
    (tmp_path / "defs" / "texts").mkdir(parents=True)
    (tmp_path / "defs" / "texts" / "defs.yaml").write_text(PIPELINE.format(folder=tmp_path))
    return tmp_path / "defs"


def test_orders_are_taken_carried_out_and_outlive_the_server(tmp_path: Path, defs: Path) -> None:
    machine = make_machine(tmp_path / "home", BATCH_ASSETS_TOKEN=TOKEN)
    with serving(machine, defs) as (client, kill):
        # Without the token all is alike, and nothing is taken.
        assert client.ask("GET", "/health", token=None) == (200, {"status": "ok"})
        paths = ("/trigger/texts", "/trigger/other", "/docs", "/", "/health")
        refused = [client.ask("POST", path, "a", token) for path in paths for token in (None, TOKEN[:-1])]
        assert {status for status, _ in refused} == {401}
        assert len({str(answer) for _, answer in refused}) == 1
        assert client.ask("GET", "/trigger/texts/a", token=None)[0] == 401
        assert client.ask("GET", "/trigger/texts/a")[0] == 404
        # With it, what cannot be taken is refused.
        assert client.ask("POST", "/trigger/other")[0] == 404
        assert client.ask("POST", "/trigger/texts", "")[0] == 400
        assert client.ask("POST", "/trigger/texts", "x" * 256)[0] == 400
        assert client.ask("POST", "/trigger/texts", "b", body=b"x" * (64 * 1024 + 1))[0] == 413
        assert client.ask("GET", "/trigger/texts/b")[0] == 404
        # The same key is one order.
        body, json_body = b'{"any": "thing"}', {"Content-Type": "application/json"}
        status, order = client.ask("POST", "/trigger/texts", "day/1 of 2", body=body, headers=json_body)
        assert (status, order["pipeline"], order["key"]) == (202, "texts", "day/1 of 2")
        assert set(order) == {"pipeline", "key", "state", "created_at", "url"}
        again = client.ask("POST", "/trigger/texts", "day/1 of 2")
        assert (again[0], again[1]["created_at"]) == (200, order["created_at"])
        ended = client.until_ended(order["url"])
        assert ended["state"] == "failed"
        assert ended["message"].startswith(f"{tmp_path}/nowhere: ")
        # Two orders without a key are two; whoever gave them is told so before the server dies.
        two = [client.ask("POST", "/trigger/texts") for _ in range(2)]
        assert [status for status, _ in two] == [202, 202]
        kill()
    with serving(machine, defs) as (client, _):
        assert client.ask("POST", "/trigger/texts", "day/1 of 2")[1]["state"] == "failed"
        for _, given in two:
            path = f"/trigger/texts/{given['key']}"
            assert client.until_ended(path)["message"].startswith(f"{tmp_path}/nowhere: ")


@pytest.mark.parametrize("token", ["", "too short", "with spaces 0123456789"])
def test_it_does_not_start_without_a_token(tmp_path: Path, defs: Path, token: str) -> None:
    from typer.testing import CliRunner

    from batch_assets.cli.app import app
    from batch_assets.errors import ConfigurationError

    found = CliRunner(env={"BATCH_ASSETS_TOKEN": token}).invoke(app, ["serve", "--defs", str(defs)])
    assert isinstance(found.exception, ConfigurationError)
    assert "BATCH_ASSETS_TOKEN" in str(found.exception)
    assert not token or token not in str(found.exception)
