"""The list of targets: what it makes, and what it refuses in words."""

import pytest

from batch_assets.errors import ConfigurationError
from batch_assets.notifications.log import LogNotifier
from batch_assets.notifications.registry import VARIABLE, create_notifiers
from batch_assets.notifications.slack import SlackNotifier
from batch_assets.notifications.sns import SnsNotifier
from batch_assets.notifications.webhook import WebhookNotifier
from batch_assets_tests.notifications.servers import SECRET

TOPIC = "arn:aws:sns:us-east-1:123456789012:alerts"


def test_each_kind_is_made_once_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"log  sns:{TOPIC} slack:https://s/1\nwebhook:http://10.0.0.1:8080/x log")
    assert create_notifiers() == (
        LogNotifier(),
        SnsNotifier(TOPIC),
        SlackNotifier("https://s/1"),
        WebhookNotifier("http://10.0.0.1:8080/x"),
    )


@pytest.mark.parametrize("value", [None, "", "  "])
def test_without_a_word_it_is_the_log(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert create_notifiers() == (LogNotifier(),)


def test_what_is_given_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "slack:https://s/1")
    assert create_notifiers("log") == (LogNotifier(),)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (f"slak:https://h/{SECRET}", "part 2 (slak:…) is no known target"),
        (f"https://h/{SECRET}", "part 2 (https:…) is no known target"),
        (SECRET, "part 2 is no known target"),
        (f"log:{SECRET}", "part 2 (log:…) is no known target"),
        ("sns", "part 2 '' is not the ARN"),
        ("sns:alerts", "part 2 (sns:…) 'alerts' is not the ARN of a standard topic"),
        (f"sns:{TOPIC}.fifo", f"'{TOPIC}.fifo' is not the ARN of a standard topic"),
        (f"slack:{SECRET}", "part 2 (slack:…) must have https:// or http:// and a host"),
        (f"slack:ftp://h/{SECRET}", "part 2 (slack:…) must have https:// or http:// and a host"),
        (f"webhook:https:///{SECRET}", "part 2 (webhook:…) must have https:// or http:// and a host"),
        (f"webhook:https://h:{SECRET}/", "part 2 (webhook:…) is not a URL: its host or port"),
        (f"webhook:https://[{SECRET}/", "part 2 (webhook:…) is not a URL: its host or port"),
    ],
)
def test_a_wrong_part_is_named_without_its_secret(part: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        create_notifiers(f"log {part}")
    assert told in str(error.value)
    assert "BATCH_ASSETS_NOTIFY" in str(error.value)
    assert SECRET not in str(error.value)
