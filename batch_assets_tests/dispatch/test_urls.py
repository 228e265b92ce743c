"""Which queue a URL names, what cannot be one, and that no error tells a password."""

from pathlib import Path

import pytest

from batch_assets.dispatch.queues.local import LocalQueue
from batch_assets.dispatch.queues.redis import RedisQueue
from batch_assets.dispatch.queues.redis_channel import RedisChannel
from batch_assets.dispatch.queues.urls import queue_of
from batch_assets.errors import ConfigurationError
from batch_assets.requests.database import RequestsDatabase

PASSWORD = "geheim"


@pytest.fixture
def database(tmp_path: Path) -> RequestsDatabase:
    return RequestsDatabase(f"sqlite:///{tmp_path}/requests.db")


def none_needed() -> RequestsDatabase:
    raise AssertionError("only embedded queues need the database")


@pytest.mark.parametrize("url", ["local:requests", "local:a b/c?d=e#f", "local:ä"])
def test_local_is_the_embedded_queue(database: RequestsDatabase, url: str) -> None:
    queue = queue_of(url, None, lambda: database)
    assert isinstance(queue, LocalQueue)
    assert queue.name == url.removeprefix("local:")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://h/0?queue=a", "a"),
        ("redis://h?queue=a", "a"),
        ("redis://:p%40ss@h:7000/3?queue=a%3Ab", "a:b"),
        ("rediss://u:p@h:7000/?queue=a", "a"),
        ("redis://[::1]:7000/0?queue=a", "a"),
    ],
)
def test_redis_is_a_sorted_set(url: str, name: str) -> None:
    queue = queue_of(url, None, none_needed)
    assert isinstance(queue, RedisQueue)
    assert not isinstance(queue, RedisChannel)
    assert queue.name == name


def test_pubsub_is_a_channel() -> None:
    queue = queue_of("redis+pubsub://h/0?channel=a&retry=b", "redis+pubsub://h/0?channel=c", none_needed)
    assert isinstance(queue, RedisChannel)
    assert queue.name == "a"


def test_results_are_elsewhere_on_the_same_server(database: RequestsDatabase) -> None:
    queue_of("local:a", "local:b", lambda: database)
    queue_of("redis://:p@h/0?queue=a", "redis://:p@h/0?queue=b", none_needed)
    queue_of("redis://h?queue=a", "redis://h/0?queue=b", none_needed)


@pytest.mark.parametrize(
    ("url", "results"),
    [
        ("redis://h/0?queue=a", "redis://other/0?queue=a-results"),
        ("redis://h/0?queue=a", "redis://h/1?queue=a-results"),
        ("redis://h/0?queue=a", "redis://h:7000/0?queue=a-results"),
        ("redis://h/0?queue=a", "rediss://h/0?queue=a-results"),
        ("redis://h/0?queue=a", "redis+pubsub://h/0?channel=b"),
        ("redis://h/0?queue=a", "local:b"),
        ("local:a", "redis://h/0?queue=b"),
        ("local:a", "sqs://eu-west-1/b"),
        ("sqs://eu-west-1/a", "sqs://eu-west-2/b"),
        (f"redis://:{PASSWORD}@h/0?queue=a", f"redis://:{PASSWORD}@other/0?queue=b"),
    ],
)
def test_results_on_another_server_are_refused(url: str, results: str) -> None:
    with pytest.raises(ConfigurationError, match="they must be on the server of the queue") as told:
        queue_of(url, results, none_needed)
    assert PASSWORD not in str(told.value)


@pytest.mark.parametrize(
    "url",
    [
        "", "a", "requests", "http://h/a", "amqp://h/a", "Local:a", "local:", "local:\n", "redis://h/0",
        "redis:a",
        "redis://h/0?queue=", "redis://h/0?channel=a", "redis:///0?queue=a", "redis://h/a?queue=a",
        "redis://h/0/1?queue=a", "redis://h:port/0?queue=a", "redis://h:99999/0?queue=a",
        "redis://[::1/0?queue=a",
        "redis+pubsub://h/0?queue=a", "redis://h/0?queue=a%00", "sqs://eu-west-1", "sqs://eu-west-1/",
        "sqs:///a",
        "sqs://eu-west-1/a/b", "sqs://eu-west-1/a b", "sqs://eu_west/a",
    ],
)  # fmt: skip
def test_what_names_no_queue_is_refused_with_how_to_name_one(database: RequestsDatabase, url: str) -> None:
    with pytest.raises(ConfigurationError, match="write local:NAME"):
        queue_of(url, None, lambda: database)


@pytest.mark.parametrize(
    "user", [f":{PASSWORD}@", f"u:{PASSWORD}@", f":a@{PASSWORD}@", f":a/{PASSWORD}@", f":?{PASSWORD}@"]
)
@pytest.mark.parametrize("rest", ["h/0", "h/a?queue=a", "h:port/0?queue=a", "[::1/0?queue=a", "/0?queue=a"])
@pytest.mark.parametrize("kind", ["redis", "rediss+pubsub", "amqp"])
def test_no_error_tells_a_password(kind: str, user: str, rest: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        queue_of(f"{kind}://{user}{rest}", None, none_needed)
    assert PASSWORD not in str(told.value)
    assert PASSWORD not in repr(told.value.__cause__)
