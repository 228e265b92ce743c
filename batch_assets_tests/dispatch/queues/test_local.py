"""The embedded queue, on a file of SQLite and on a real PostgreSQL."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from batch_assets.dispatch.queues.base import Queue, QueueAway
from batch_assets.dispatch.queues.local import LocalQueue
from batch_assets.requests.database import RequestsDatabase
from batch_assets_tests.dispatch.queues.claiming_contract import ClaimingContract
from batch_assets_tests.dispatch.queues.ending_contract import EndingContract
from batch_assets_tests.dispatch.queues.in_queue import (
    FAR,
    LONG,
    MakeQueue,
    bodies,
    claim_one,
    ended,
    in_queue,
    message,
)
from batch_assets_tests.dispatch.valkey import new_name
from batch_assets_tests.ledger.postgres import running_server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """One PostgreSQL for all tests of this module, which have queues of their own."""
    with running_server() as running:
        yield running.url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/requests.db"
    return str(request.getfixturevalue("server"))


@pytest.fixture
def name() -> str:
    return new_name()


@pytest.fixture
def databases(database_url: str) -> Iterator[Callable[[], RequestsDatabase]]:
    """Each call is another process's access, as far as the database can tell."""
    opened: list[RequestsDatabase] = []

    def open_one() -> RequestsDatabase:
        opened.append(RequestsDatabase(database_url))
        return opened[-1]

    yield open_one
    for database in opened:
        database.dispose()


class TestLocalQueue(ClaimingContract, EndingContract):
    """The contract, and what the embedded queue does beyond it."""

    @pytest.fixture
    def make(self, databases: Callable[[], RequestsDatabase], name: str) -> MakeQueue:
        return lambda: LocalQueue(databases(), name)

    @pytest.fixture
    def dead(self, databases: Callable[[], RequestsDatabase], name: str) -> Callable[[], list[bytes]]:
        def read() -> list[bytes]:
            with databases().read() as connection:
                query = sa.text("SELECT body FROM requests_dead WHERE queue = :queue ORDER BY number")
                return [bytes(body) for body in connection.scalars(query, {"queue": name})]

        return read

    def test_equal_deadlines_come_in_the_order_of_arrival(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            arrived = [message(str(number)) for number in (5, 3, 9, 1, 7)]
            await queue.put(arrived[:3])
            await queue.put(arrived[3:])
            assert bodies(await queue.claim(10, LONG)) == arrived

        in_queue(make, steps)

    def test_the_age_of_the_oldest_is_known(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            await queue.put([message("a", FAR)])
            await queue.put([message("b", FAR - 1)])
            first, second = await queue.claim(2, LONG)
            assert first.body == message("b", FAR - 1)
            assert second.arrived is not None and first.arrived is not None
            assert (await queue.depth()).oldest == second.arrived <= first.arrived
            await queue.finish([ended(second, None)])
            assert (await queue.depth()).oldest == first.arrived

        in_queue(make, steps)

    def test_queues_of_one_database_have_nothing_in_common(
        self, databases: Callable[[], RequestsDatabase], name: str
    ) -> None:
        async def steps(queue: Queue) -> None:
            other = LocalQueue(databases(), f"{name}-other", f"{name}-results")
            await queue.put([message("a")])
            await other.put([message("a")])
            await queue.cancel("a")
            await queue.finish([ended(await claim_one(queue), b"1")])
            claimed = await claim_one(other)
            known = await other.look_up([])
            assert known.cancelled == known.finished == frozenset()
            await other.finish([ended(claimed, b"2")])
            assert await other.take_results(10) == [b"1", b"2"], "they may share their results"
            await other.close()

        in_queue(lambda: LocalQueue(databases(), name), steps)

    def test_several_may_open_it_at_once(self, databases: Callable[[], RequestsDatabase], name: str) -> None:
        async def main() -> None:
            queues = [LocalQueue(databases(), name) for _ in range(4)]
            await asyncio.gather(*(queue.open() for queue in queues))
            await asyncio.gather(*(queue.put([message(str(id(queue)))]) for queue in queues))
            assert len(await queues[0].claim(10, LONG)) == 4
            for queue in queues:
                await queue.close()

        asyncio.run(main())


def test_a_database_that_is_away_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        queue = LocalQueue(RequestsDatabase(f"postgresql://nobody@/none?host={tmp_path}"), "a")
        with pytest.raises(QueueAway):
            await queue.open()
        await queue.close()

    asyncio.run(main())
