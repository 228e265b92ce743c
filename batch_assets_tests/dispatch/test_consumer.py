"""What a queue's consumer makes of messages, whatever goes wrong with them."""

import asyncio

import pytest

from batch_assets.dispatch import consumer
from batch_assets.dispatch.consumer import Consumer
from batch_assets.dispatch.messages import Message, parse
from batch_assets.dispatch.metrics import Metrics
from batch_assets.dispatch.queues.local import LocalQueue
from batch_assets.requests.database import RequestsDatabase
from batch_assets_tests.dispatch.queues.in_queue import message
from batch_assets_tests.waiting import until


def test_a_message_that_cannot_be_read_by_a_fault_of_ours_stops_no_other(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(body: bytes) -> Message:
        if body == message("bad"):
            raise RuntimeError("a fault of ours")
        return parse(body)

    async def main() -> None:
        queue = LocalQueue(RequestsDatabase(f"sqlite:///{tmp_path}/requests.db"), "q")
        await queue.open()
        await queue.put([message("bad"), message("good")])
        taking = Consumer(queue, Metrics(), lambda: None, lease_seconds=600, results_max=10)
        storing = asyncio.create_task(taking.claims.store_ends())
        (delivery,) = await taking.claim(10)
        assert delivery.message.id == "good"
        taking.complete(delivery, 200, b"{}")

        async def stored() -> bool:
            return not taking.claims.unstored

        await until(stored, "ends are not stored")
        storing.cancel()
        assert [result[:12] for result in await queue.take_results(10)] == [b'{"id":"good"']
        depth = await queue.depth()
        assert (depth.waiting, depth.claimed) == (0, 0), "the bad one is among the dead letters"
        await queue.close()

    monkeypatch.setattr(consumer, "parse", faulty)
    asyncio.run(main())
