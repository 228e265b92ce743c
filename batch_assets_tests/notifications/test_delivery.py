"""Told once, to all targets, and never to the harm of the caller."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_assets.ledger.ledger import Ledger
from batch_assets.notifications.base import DeliveryError, Notification
from batch_assets.notifications.delivery import notify
from batch_assets.notifications.webhook import WebhookNotifier
from batch_assets_tests.notifications.servers import NOTICE, SECRET, Hook


class Once:
    """What the ledger's `notice_once` is to `notify`."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def __call__(self, key: str) -> bool:
        known = len(self.keys)
        self.keys.add(key)
        return len(self.keys) > known


class Collecting:
    """A target that keeps what it gets."""

    target = "collecting"

    def __init__(self) -> None:
        self.got: list[Notification] = []

    def send(self, notification: Notification) -> None:
        self.got.append(notification)


class Broken:
    """A target that fails in one way or another."""

    target = "broken (host)"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def send(self, notification: Notification) -> None:
        raise self.error


def test_a_key_is_told_once() -> None:
    once, target = Once(), Collecting()
    assert [notify(once, [target], NOTICE) for _ in range(5)] == [True, False, False, False, False]
    assert notify(once, [target], replace(NOTICE, key="another"))
    assert [found.key for found in target.got] == [NOTICE.key, "another"]


def test_a_broken_target_takes_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    target = Collecting()
    broken = [Broken(DeliveryError("host answers HTTP 404")), Broken(ValueError(f"https://h/{SECRET}"))]
    assert notify(Once(), [*broken, target], NOTICE)
    assert target.got == [NOTICE]
    assert "broken (host): host answers HTTP 404" in caplog.text
    assert "broken (host): ValueError" in caplog.text
    assert SECRET not in caplog.text
    assert NOTICE.meaning not in caplog.text


def test_what_no_target_takes_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert notify(Once(), [Broken(DeliveryError("gone"))], NOTICE)
    assert NOTICE.text().replace("\n", " | ") in caplog.text


def test_what_the_ledger_raises_is_the_callers() -> None:
    def once(key: str) -> bool:
        raise RuntimeError("the database is gone")

    target = Collecting()
    with pytest.raises(RuntimeError, match="the database is gone"):
        notify(once, [target], NOTICE)
    assert target.got == []


def test_twenty_callers_at_once_post_one(server: Hook) -> None:
    once = Once()
    with ThreadPoolExecutor(20) as pool:
        told = list(pool.map(lambda _: notify(once, [WebhookNotifier(server.url)], NOTICE), range(20)))
    assert sum(told) == len(server.bodies) == 1


NOTIFY = """
import sys
from batch_assets.ledger.ledger import Ledger
from batch_assets.notifications.delivery import notify
from batch_assets.notifications.webhook import WebhookNotifier
from batch_assets_tests.notifications.servers import NOTICE
ledger = Ledger.open(sys.argv[1])
print("ready", flush=True)
input()
print(notify(ledger.notice_once, [WebhookNotifier(sys.argv[2])], NOTICE))
"""


def test_of_several_processes_on_one_ledger_one_tells(server: Hook, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.open(url).dispose()
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", NOTIFY, url, server.url], **pipes) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate()[0] for process in processes]
    assert sorted(told) == ["False\n", "False\n", "True\n"]
    assert [body["key"] for body in server.bodies] == [NOTICE.key]
