"""A look at a queue from outside: true, whoever works on it, and without a trace in it."""

import time
from pathlib import Path

import pytest
import redis

from batch_assets.dispatch.observing import look_at
from batch_assets.dispatch.queues.base import Ending, Queue, QueueAway
from batch_assets.dispatch.queues.urls import queue_of
from batch_assets.requests.database import RequestsDatabase
from batch_assets_tests.dispatch.queues.in_queue import LONG, ended, in_queue, message
from batch_assets_tests.dispatch.valkey import new_name, running_valkey


def none_needed() -> RequestsDatabase:
    raise AssertionError("only embedded queues need the database")


def test_what_there_is_in_an_embedded_queue(tmp_path: Path) -> None:
    def open_database() -> RequestsDatabase:
        return RequestsDatabase(f"sqlite:///{tmp_path}/requests.db")

    async def steps(queue: Queue) -> None:
        past = time.time() - 100
        await queue.put([message("a", past + 1), message("b", past), message("c", past)])
        claimed = await queue.claim(1, LONG)
        await queue.finish([ended(each, b"{}", Ending.FAILED) for each in claimed])
        await queue.claim(1, LONG)

    assert look_at("local:q", None, open_database).depth.waiting == 0, "nobody has made it yet"
    in_queue(lambda: queue_of("local:q", None, open_database), steps)
    look = look_at("local:q", None, open_database)
    assert (look.depth.waiting, look.depth.claimed, look.depth.results) == (1, 1, 1)
    assert look.endings[Ending.FAILED] == 1
    assert look.overdue_seconds >= 98
    assert look.oldest_seconds >= 0


def test_a_look_at_redis_leaves_no_trace() -> None:
    with running_valkey() as server, redis.Redis(port=server.port) as client:
        name = new_name()
        for url in (server.url(queue=name), server.url(channel=name).replace("redis:", "redis+pubsub:")):
            look = look_at(url, None, none_needed)
            assert (look.depth.waiting, look.overdue_seconds, sum(look.endings.values())) == (0, 0, 0)
        assert client.keys() == []
        client.zadd(name, {"no message": 1, '{"id":"a","payload":{}}': time.time() + LONG})
        look = look_at(server.url(queue=name), None, none_needed)
        assert (look.depth.waiting, look.depth.first_deadline) == (2, 1.0)
        assert abs(look.overdue_seconds - (look.at - 1)) < 1e-6
        server.kill()
        with pytest.raises(QueueAway, match=f"127.0.0.1:{server.port}"):
            look_at(server.url(queue=name), None, none_needed)
