"""Queues on a real Valkey: the contract, what others do with its keys, and a server that is killed."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator

import pytest
import redis

from batch_assets.dispatch.queues.base import Claimed, Queue, QueueAway, Returned
from batch_assets.dispatch.queues.redis import RedisQueue
from batch_assets.dispatch.queues.redis_channel import RedisChannel
from batch_assets.dispatch.queues.redis_server import RedisURL
from batch_assets.errors import ConfigurationError
from batch_assets_tests.dispatch.queues.claiming_contract import ClaimingContract
from batch_assets_tests.dispatch.queues.ending_contract import EndingContract
from batch_assets_tests.dispatch.queues.in_queue import (
    FAR,
    LONG,
    SHORT,
    MakeQueue,
    bodies,
    claim_again,
    claim_one,
    ended,
    in_queue,
    message,
    named,
)
from batch_assets_tests.dispatch.valkey import Valkey, new_name, running_valkey, subscribed
from batch_assets_tests.waiting import PATIENCE_SECONDS, until


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def name() -> str:
    return new_name()


@pytest.fixture
def client(valkey: Valkey) -> Iterator[redis.Redis]:
    """As a producer or a consumer has one."""
    with redis.Redis(port=valkey.port) as client:
        yield client


def url_of(server: Valkey) -> RedisURL:
    return RedisURL(server.url(), f"redis 127.0.0.1:{server.port}")


async def until_answered(queue: Queue) -> list[Claimed]:
    """Claims as soon as the server is back."""
    answers: list[list[Claimed]] = []

    async def answered() -> bool:
        with contextlib.suppress(QueueAway):
            answers.append(await queue.claim(10, LONG))
        return bool(answers)

    await until(answered, "the server does not come back")
    return answers[0]


class TestRedisQueue(ClaimingContract, EndingContract):
    """The contract, and what is Redis's own."""

    @pytest.fixture
    def make(self, valkey: Valkey, name: str) -> MakeQueue:
        return lambda: RedisQueue(url_of(valkey), name)

    @pytest.fixture
    def dead(self, client: redis.Redis, name: str) -> Callable[[], list[bytes]]:
        return lambda: client.lrange(f"{name}-dead", 0, -1)[::-1]

    def test_producers_and_consumers_need_only_redis(
        self, make: MakeQueue, client: redis.Redis, name: str
    ) -> None:
        async def steps(queue: Queue) -> None:
            client.zadd(name, {message("later"): FAR + 5, message("first"): 7.25})
            claimed = await queue.claim(10, LONG)
            assert bodies(claimed) == [message("first"), message("later")], "in the order that they chose"
            await queue.give_back([Returned(claimed[0], 1)])
            assert client.zscore(name, message("first")) == 7.25
            await queue.finish([ended(each, named(each.body).id.encode()) for each in claimed])

        in_queue(make, steps)
        assert [client.brpop([f"{name}-results"], 60) for _ in range(2)] == [
            (f"{name}-results".encode(), b"first"),
            (f"{name}-results".encode(), b"later"),
        ]

    def test_a_finished_message_leaves_no_more_than_its_token_and_is_counted(
        self, make: MakeQueue, client: redis.Redis, name: str
    ) -> None:
        async def steps(queue: Queue) -> None:
            await queue.put([message("a"), message("b")])
            await queue.finish([ended(each, b"1") for each in await queue.claim(10, LONG)])
            await queue.take_results(10)

        in_queue(make, steps)
        assert {key.decode() for key in client.keys(f"{name}*")} == {f"{name}-finished", f"{name}-endings"}

    def test_more_run_out_than_one_claim_looks_at(self, make: MakeQueue) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            await first.put([message(str(number)) for number in range(250)])
            assert len(await first.claim(250, SHORT)) == 250
            again: set[bytes] = set()
            while len(again) < 250:
                again |= set(bodies(await claim_again(second, 7)))

        in_queue(make, steps, 2)

    @pytest.mark.parametrize("part", ["", "-claimed", "-state", "-finished", "-results", "-dead"])
    def test_a_key_that_is_something_else_is_said_at_once(
        self, make: MakeQueue, client: redis.Redis, name: str, part: str
    ) -> None:
        client.set(name + part, "mine")

        async def steps(_: Queue) -> None: ...

        with pytest.raises(ConfigurationError, match=name + part):
            in_queue(make, steps)
        assert client.get(name + part) == b"mine"

    def test_results_cannot_be_the_queue_itself(self, valkey: Valkey, name: str) -> None:
        async def steps(_: Queue) -> None: ...

        with pytest.raises(ConfigurationError, match=name):
            in_queue(lambda: RedisQueue(url_of(valkey), name, name), steps)

    def test_the_servers_clock_is_heard(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            await queue.claim(1, LONG)
            assert abs(queue.clock_ahead) < PATIENCE_SECONDS, "it is the same machine"

        in_queue(make, steps)


class TestRedisChannel:
    """Channels: what a worker has heard is a queue like any other."""

    @pytest.fixture
    def make(self, valkey: Valkey, name: str) -> MakeQueue:
        return lambda: RedisChannel(url_of(valkey), name, f"{name}-retry")

    def test_what_is_published_is_claimed_and_its_result_published(
        self, make: MakeQueue, client: redis.Redis, name: str
    ) -> None:
        results = subscribed(client, f"{name}-results")

        async def steps(queue: Queue) -> None:
            await queue.put([message("b", FAR + 1)])
            client.publish(name, message("a"))
            found: list[Claimed] = []
            while len(found) < 2:
                found += await claim_again(queue)
            assert set(bodies(found)) == {message("a"), message("b", FAR + 1)}
            depth = await queue.depth()
            assert (depth.waiting, depth.claimed, depth.results) == (0, 2, 0)
            await queue.finish([ended(each, named(each.body).id.encode()) for each in found])

        in_queue(make, steps)
        assert {next(results), next(results)} == {b"a", b"b"}

    def test_what_one_worker_has_heard_is_done_by_another(self, make: MakeQueue) -> None:
        async def first(queue: Queue) -> None:
            await queue.put([message("a")])
            await queue.give_back([Returned((await claim_again(queue))[0], 2)])

        async def second(queue: Queue) -> None:
            assert (await claim_one(queue)).attempts == 2

        in_queue(make, first)
        in_queue(make, second)

    def test_results_are_for_who_has_subscribed(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            with pytest.raises(ConfigurationError, match="SUBSCRIBE"):
                await queue.take_results(1)

        in_queue(make, steps)


def test_a_server_that_was_killed_has_lost_nothing() -> None:
    async def main(server: Valkey) -> None:
        queue = RedisQueue(url_of(server), "a")
        await queue.open()
        await queue.put([message(str(number), FAR + number) for number in range(4)])
        done, held, back = await queue.claim(3, LONG)
        await queue.finish([ended(done, b"0")])
        await queue.give_back([Returned(back, 5)])
        await queue.cancel("3")
        server.kill()
        for step in (
            queue.open,
            lambda: queue.put([message("lost")]),
            lambda: queue.claim(1, LONG),
            lambda: queue.finish([ended(held, b"1")]),
            queue.depth,
        ):
            with pytest.raises(QueueAway):
                await step()
        server.start()
        claimed = await until_answered(queue)
        assert [(json.loads(each.body)["id"], each.attempts) for each in claimed] == [("2", 5), ("3", 0)]
        known = await queue.look_up([named(done.body), named(claimed[1].body)])
        assert known.finished == {named(done.body)}
        assert known.cancelled == {named(claimed[1].body)}
        await queue.finish([ended(held, b"1"), ended(done, b"0"), *(ended(each, b"2") for each in claimed)])
        assert await queue.take_results(10) == [b"0", b"1", b"2", b"2"]
        await queue.close()

    with running_valkey() as server:
        asyncio.run(main(server))


def test_a_wrong_password_is_said_at_once_and_not_repeated() -> None:
    async def main(server: Valkey) -> None:
        wrong = url_of(server).url.replace("rightful", "mistaken")
        queue = RedisQueue(RedisURL(wrong, "redis here"), "a")
        with pytest.raises(ConfigurationError, match="user and password") as told:
            await queue.open()
        assert "mistaken" not in str(told.value)
        await queue.close()

    with running_valkey(password="rightful") as server:
        asyncio.run(main(server))
