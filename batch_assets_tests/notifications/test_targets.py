"""Each kind of target, against a server that takes it or does not."""

import base64
import json
import logging
import socket
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from batch_assets.notifications import posting
from batch_assets.notifications.base import DeliveryError
from batch_assets.notifications.log import LogNotifier
from batch_assets.notifications.slack import SlackNotifier
from batch_assets.notifications.sns import SnsNotifier
from batch_assets.notifications.webhook import WebhookNotifier
from batch_assets_tests.notifications.servers import NOTICE, SECRET, Hook
from batch_assets_tests.object_store import s3_server, use_s3
from batch_assets_tests.waiting import wait_until


def test_slack_gets_a_text_without_markup_of_others(server: Hook) -> None:
    SlackNotifier(server.url).send(NOTICE)
    assert server.bodies == [
        {
            "text": "*texts: the job of shard g0001-00042 failed*\n"
            "Job ba-texts-7: &lt;expired&gt; &amp; gone\n"
            "The rest is tried again by itself.\n"
            "`batch-assets status texts`"
        }
    ]
    assert server.paths == [f"/services/{SECRET}"]


def test_a_webhook_gets_every_field(server: Hook) -> None:
    WebhookNotifier(server.url).send(NOTICE)
    assert server.bodies == [asdict(NOTICE)]
    assert set(server.bodies[0]) == {
        "key", "title", "happened", "meaning", "command", "pipeline", "severity",
    }  # fmt: skip


@pytest.mark.parametrize("entry", ["machine 127.0.0.1", "default"])
def test_no_credentials_of_other_programs_are_sent(
    server: Hook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entry: str
) -> None:
    (tmp_path / "netrc").write_text(f"{entry} login me password for-another-program\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    WebhookNotifier(server.url).send(NOTICE)
    assert server.credentials == [None]
    # Those that stand in the hook's own URL are.
    WebhookNotifier(server.url.replace("://", "://hook:word@")).send(NOTICE)
    assert server.credentials == [None, "Basic " + base64.b64encode(b"hook:word").decode()]


def test_a_hook_is_reached_by_the_networks_proxy(server: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, server.url)
    WebhookNotifier("http://hook.invalid/it").send(NOTICE)
    assert server.paths == ["http://hook.invalid/it"]


@pytest.mark.parametrize("status", [429, 502, 503])
def test_what_the_server_has_not_taken_is_sent_again(server: Hook, status: int) -> None:
    server.statuses = [status, status, 200]
    WebhookNotifier(server.url).send(NOTICE)
    assert len(server.bodies) == 3


@pytest.mark.parametrize(("status", "sent"), [(400, 1), (404, 1), (500, 1), (301, 1), (307, 1), (503, 3)])
def test_what_is_refused_ends_soon_and_says_no_secret(server: Hook, status: int, sent: int) -> None:
    server.statuses = [status]
    with pytest.raises(DeliveryError) as error:
        SlackNotifier(server.url).send(NOTICE)
    assert str(error.value) == f"127.0.0.1 answers HTTP {status}"
    assert len(server.bodies) == sent


def test_an_answer_that_does_not_come_is_not_asked_for_twice(
    server: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "ANSWER_SECONDS", 0.2)
    answered = threading.Event()
    server.before = answered.wait
    with pytest.raises(DeliveryError, match=r"^127\.0\.0\.1 does not answer within 0\.2 s$"):
        WebhookNotifier(server.url).send(NOTICE)
    wait_until(lambda: server.bodies)
    answered.set()
    assert len(server.bodies) == 1


def test_a_server_that_is_not_there_is_tried_three_times_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with caplog.at_level(logging.INFO), pytest.raises(DeliveryError) as error:
        WebhookNotifier(f"http://user:{SECRET}@127.0.0.1:{port}/{SECRET}").send(NOTICE)
    assert str(error.value) == "127.0.0.1 cannot be reached: NewConnectionError"
    assert pauses == [
        posting.HOOK_FIRST_PAUSE_SECONDS,
        posting.HOOK_FIRST_PAUSE_SECONDS * posting.HOOK_PAUSES_GROW_BY,
    ]
    assert SECRET not in caplog.text


def test_a_target_shows_no_secret() -> None:
    for notifier in (SlackNotifier(f"https://h/{SECRET}"), WebhookNotifier(f"https://u:{SECRET}@h/")):
        assert SECRET not in repr(notifier)
        assert SECRET not in notifier.target
    assert SlackNotifier("https://hooks.example/x").target == "slack (hooks.example)"


def test_the_log_gets_all_of_it_at_its_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        LogNotifier().send(NOTICE)
        LogNotifier().send(replace(NOTICE, severity="info"))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "Next: batch-assets status texts" in caplog.text


def test_sns_brings_it_to_a_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as endpoint:
        use_s3(endpoint, monkeypatch)
        options: dict[str, Any] = {"endpoint_url": endpoint, "region_name": "eu-west-1"}
        sns, sqs = boto3.client("sns", **options), boto3.client("sqs", **options)
        arn = sns.create_topic(Name="alerts")["TopicArn"]
        queue = sqs.create_queue(QueueName="mail")["QueueUrl"]
        queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
        sns.subscribe(
            TopicArn=arn,
            Protocol="sqs",
            Endpoint=queue_arn["Attributes"]["QueueArn"],
            Attributes={"FilterPolicy": json.dumps({"severity": ["warning"]})},
        )
        # The topic is in another region than the environment's (us-east-1), and titles may be anything.
        odd = replace(NOTICE, title="näme of\nmany " + "words " * 40)
        SnsNotifier(arn).send(odd)
        SnsNotifier(arn).send(replace(NOTICE, severity="info"))
        [message] = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
        body = json.loads(message["Body"])
        assert body["Message"] == odd.text()
        assert body["Subject"].startswith(r"n?me of\nmany words")
        assert len(body["Subject"]) <= 100
        assert body["MessageAttributes"]["pipeline"] == {"Type": "String", "Value": "texts"}
        with pytest.raises(DeliveryError, match="NotFound"):
            SnsNotifier(arn.replace("alerts", "none")).send(NOTICE)
