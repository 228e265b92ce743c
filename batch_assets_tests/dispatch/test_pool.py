"""What a pool does not send: what it has taken when it ends, and what it has not held for a time."""

import asyncio
from pathlib import Path

from batch_assets.dispatch.calls import Caller
from batch_assets.dispatch.consumer import Consumer
from batch_assets.dispatch.merging import POLICIES
from batch_assets.dispatch.metrics import Metrics
from batch_assets.dispatch.pool import Pool
from batch_assets.dispatch.queues.base import Claimed
from batch_assets.dispatch.queues.local import LocalQueue
from batch_assets.gateway.client import Client
from batch_assets.gateway.window import Window
from batch_assets.requests.database import RequestsDatabase
from batch_assets_tests.dispatch.queues.in_queue import LONG, SHORT, message
from batch_assets_tests.waiting import until


class SlowQueue(LocalQueue):
    """Its claims are made, and heard of only when the test says so."""

    def __init__(self, database: RequestsDatabase) -> None:
        super().__init__(database, "q")
        self.claimed, self.heard = asyncio.Event(), asyncio.Event()

    async def claim(self, most: int, lease_seconds: float, *, expired_only: bool = False) -> list[Claimed]:
        found = await super().claim(most, lease_seconds, expired_only=expired_only)
        self.claimed.set()
        await self.heard.wait()
        return found


def test_what_a_claim_brings_after_the_order_to_end_goes_back_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        queue = SlowQueue(RequestsDatabase(f"sqlite:///{tmp_path}/requests.db"))
        await queue.open()
        await queue.put([message("a"), message("b")])
        changed, client = asyncio.Event(), Client("http://127.0.0.1:9")
        consumer = Consumer(queue, Metrics(), changed.set, lease_seconds=600, results_max=10)
        storing = asyncio.create_task(consumer.claims.store_ends())
        caller = Caller(client, Window(), {})
        pool = Pool("p", caller, [consumer], POLICIES["random-robin"], Metrics(), changed)
        running = asyncio.create_task(pool.run())
        await queue.claimed.wait()
        ending = asyncio.create_task(pool.stop(600))
        await asyncio.sleep(0)
        queue.heard.set()
        await ending
        await running

        async def stored() -> bool:
            return not consumer.claims.unstored

        await until(stored, "what was taken is not given back")
        storing.cancel()
        depth = await queue.depth()
        assert (depth.waiting, depth.claimed) == (2, 0)
        await client.close()
        await queue.close()

    asyncio.run(main())


def test_what_was_not_held_for_a_time_is_given_back_and_not_called(tmp_path: Path) -> None:
    """After this process has stood still, somebody else may be at it. Nothing listens: a call would be told."""

    async def main() -> None:
        queue = LocalQueue(RequestsDatabase(f"sqlite:///{tmp_path}/requests.db"), "q")
        await queue.open()
        await queue.put([message("a")])
        changed, client, metrics = asyncio.Event(), Client("http://127.0.0.1:9"), Metrics()
        consumer = Consumer(queue, metrics, changed.set, lease_seconds=SHORT, results_max=10)
        storing = asyncio.create_task(consumer.claims.store_ends())
        pool = Pool("p", Caller(client, Window(), {}), [consumer], POLICIES["random-robin"], metrics, changed)
        (delivery,) = await consumer.claim(1)
        await asyncio.sleep(2 * SHORT)
        assert consumer.claims.has_lapsed(delivery.claimed)
        await pool._deal_with(delivery)

        async def stored() -> bool:
            return not consumer.claims.unstored

        await until(stored, "it is not given back")
        storing.cancel()
        (again,) = await queue.claim(1, LONG)
        assert again.attempts == 0
        tried = metrics.registry.get_sample_value(
            "batch_assets_dispatch_retries_total", {"queue": "q", "reason": "not_reached"}
        )
        assert tried == 0
        await client.close()
        await queue.close()

    asyncio.run(main())
