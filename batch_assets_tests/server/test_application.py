"""What the app answers, by a server without the gate before it."""

import json
import socket
import threading
import urllib.request
from pathlib import Path

from batch_assets.ledger.ledger import Ledger
from batch_assets.ledger.triggers import TriggerState
from batch_assets.server.application import create_application
from batch_assets.server.connections import create_server
from batch_assets.server.limits import Limits
from batch_assets_tests.waiting import PATIENCE_SECONDS


def test_why_an_order_failed_is_told_without_control_characters(tmp_path: Path) -> None:
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.open_trigger("texts", "key", "webhook")
    ledger.close_trigger("texts", "key", TriggerState.FAILED, "in/\x9b2J\u202e.jsonl\n: is gone")
    server = create_server(create_application(ledger, list, lambda: None), Limits())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/trigger/texts/key"
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            order = json.load(answer)
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)
    assert order["message"] == r"in/\x9b2J\u202e.jsonl\n: is gone"
