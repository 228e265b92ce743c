"""A call is sent until it is delivered, or until that is given up."""

import asyncio
import itertools
import socket
from pathlib import Path

import pytest

from batch_assets.gateway.client import Answer, Client
from batch_assets.gateway.delivery import BadAnswer, Call, NotDelivered, Server, ServerAway, ServerRefuses
from batch_assets.gateway.window import Window
from batch_assets_tests.gateway.model_servers import model_server
from batch_assets_tests.gateway.scenario import Fault, Refusal, Scenario

CALL = Call("/v1/embeddings", b'{"model": "test-model", "input": "a text"}')


def deliver(url: str, *, minutes_a_look: float = 0.0, secret: str | None = None, tries: int = 3) -> int:
    """Deliver one call; the attempts that it took. At each look at the clock so many minutes have gone by."""
    ticks = itertools.count()

    async def call() -> int:
        headers = {"Authorization": f"Bearer {secret}"} if secret else None
        client = Client(url, headers=headers, secret=secret)
        server = Server(client, Window(), clock=lambda: 60 * minutes_a_look * next(ticks))
        try:
            return (await server.deliver(CALL, lambda answer: answer.body, tries)).attempts
        finally:
            await client.close()

    return asyncio.run(call())


def test_a_server_that_is_not_there_is_waited_for_and_then_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(ServerAway, match=r"cannot be reached: .*; waited 36 s for it\. Run again"):
        deliver(f"http://127.0.0.1:{port}", minutes_a_look=0.2)


def test_a_server_without_room_is_waited_for_an_hour(tmp_path: Path) -> None:
    full = Fault(kind="refuse", refusal=Refusal(status=503, message="saturated"))
    with (
        model_server(tmp_path, Scenario(faults=[full])) as server,
        pytest.raises(ServerAway, match=r"has no room: status 503.*saturated; waited 4,800 s"),
    ):
        deliver(server.url, minutes_a_look=40)


def test_room_that_comes_costs_no_attempt_and_breaking_does(tmp_path: Path) -> None:
    with model_server(tmp_path, Scenario(faults=[Fault(kind="refuse", calls=(1, 4))])) as server:
        assert deliver(server.url) == 1
    breaks = Fault(kind="refuse", calls=(1, 2), refusal=Refusal(status=500))
    (tmp_path / "second").mkdir()
    with model_server(tmp_path / "second", Scenario(faults=[breaks])) as server:
        assert deliver(server.url) == 3


def test_a_call_that_breaks_each_time_is_given_up(tmp_path: Path) -> None:
    breaks = Fault(kind="refuse", refusal=Refusal(status=500, message="out of memory"))
    with (
        model_server(tmp_path, Scenario(faults=[breaks])) as server,
        pytest.raises(NotDelivered, match=r"status 500, .*: out of memory") as given_up,
    ):
        deliver(server.url, tries=2)
    assert (given_up.value.attempts, given_up.value.final) == (2, False)


def test_a_key_that_the_server_repeats_is_not_told(tmp_path: Path) -> None:
    refusal = Refusal(status=401, message="this key is wrong: sk-secret-123456")
    with (
        model_server(tmp_path, Scenario(faults=[Fault(kind="refuse", refusal=refusal)])) as server,
        pytest.raises(ServerRefuses, match=r"this key is wrong: \.\.\.") as refused,
    ):
        deliver(server.url, secret="sk-secret-123456")
    assert "secret" not in str(refused.value)


def test_a_path_that_is_refused_ends_all_only_before_the_first_delivery(tmp_path: Path) -> None:
    """Afterwards it is one call's fault, such as that of a text which a provider does not allow."""
    forbidden = Fault(kind="refuse", calls=(2, 2), refusal=Refusal(status=403, message="flagged"))

    async def calls(url: str) -> None:
        client = Client(url)
        server = Server(client, Window())
        await server.deliver(CALL, lambda answer: answer.body, 3)
        with pytest.raises(NotDelivered, match="flagged"):
            await server.deliver(CALL, lambda answer: answer.body, 3)
        await server.deliver(CALL, lambda answer: answer.body, 3)
        await client.close()

    with model_server(tmp_path, Scenario(faults=[forbidden])) as server:
        asyncio.run(calls(server.url))


def test_an_answer_that_nobody_can_use_is_asked_for_again(tmp_path: Path) -> None:
    answers = itertools.count(1)

    def read(answer: Answer) -> int:
        if (number := next(answers)) < 3:
            raise BadAnswer("unexpected_output", "not this one")
        return number

    async def call(url: str) -> tuple[int, int]:
        client = Client(url)
        delivered = await Server(client, Window()).deliver(CALL, read, 3)
        await client.close()
        return delivered.content, delivered.attempts

    with model_server(tmp_path) as server:
        assert asyncio.run(call(server.url)) == (3, 3)
