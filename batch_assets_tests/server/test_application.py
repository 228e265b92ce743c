"""What the app answers, by a server without the gate before it."""

import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets.components.declared import BrokenPipeline, Declared
from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.triggers import TriggerState
from batch_assets.server.application import create_application
from batch_assets.server.connections import create_server
from batch_assets.server.limits import Limits
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets_tests.waiting import PATIENCE_SECONDS


@contextlib.contextmanager
def serving(ledger: Ledger, declared: Declared) -> Iterator[str]:
    """The URL of the app, on a port of its own."""
    server = create_server(create_application(ledger, lambda: declared, lambda: None), Limits())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)


def test_why_an_order_failed_is_told_without_control_characters(tmp_path: Path) -> None:
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.open_trigger("texts", "key", "webhook")
    ledger.close_trigger("texts", "key", TriggerState.FAILED, "in/\x9b2J\u202e.jsonl\n: is gone")
    with serving(ledger, Declared({})) as url:
        order = json.load(urllib.request.urlopen(f"{url}/trigger/texts/key", timeout=PATIENCE_SECONDS))
    assert order["message"] == r"in/\x9b2J\u202e.jsonl\n: is gone"


def test_a_broken_pipeline_keeps_no_other_from_being_started(tmp_path: Path) -> None:
    good = parse_pipeline({"source": {"uri": "/in"}, "output": {"root": "/out"}}, "good", "a test")
    reason = f"{tmp_path}/broken/defs.yaml: sourse: there is no such field"
    declared = Declared({"good": good}, [BrokenPipeline("broken", tmp_path / "broken" / "defs.yaml", reason)])
    with serving(Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}"), declared) as url:
        started = urllib.request.urlopen(f"{url}/trigger/good", data=b"", timeout=PATIENCE_SECONDS)
        assert started.status == 202
        refused: list[tuple[int, str]] = []
        for name in ("broken", "none"):
            with pytest.raises(urllib.error.HTTPError) as told:
                urllib.request.urlopen(f"{url}/trigger/{name}", data=b"", timeout=PATIENCE_SECONDS)
            refused.append((told.value.code, json.load(told.value)["detail"]))
    assert refused == [(503, reason), (404, "there is no pipeline 'none' (known: good)")]
