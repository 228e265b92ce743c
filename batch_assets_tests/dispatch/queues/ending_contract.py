"""What every kind of queue must do with the ends of messages, by tests that run on real servers of each kind."""

import asyncio
from collections.abc import Callable

from batch_assets.dispatch.queues.base import Ending, Finished, Known, Queue, Returned
from batch_assets_tests.dispatch.queues.in_queue import (
    FAR,
    LONG,
    SHORT,
    MakeQueue,
    bodies,
    claim_one,
    ended,
    in_queue,
    message,
    named,
    passed_on,
)


class EndingContract:
    """Subclasses have the fixture `make`, for the test's own queue, and `dead`, for its dead letters."""

    def test_finishing_stores_one_result_and_takes_the_message_out(self, make: MakeQueue) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            await first.put([message("a")])
            claimed = await claim_one(first, SHORT)
            await first.finish([ended(claimed, b'{"id":"a"}')])
            await asyncio.sleep(2 * SHORT)
            assert await second.claim(10, LONG) == []
            assert await second.take_results(10) == [b'{"id":"a"}']
            assert await first.take_results(10) == []
            depth = await second.depth()
            assert (depth.waiting, depth.claimed, depth.results) == (0, 0, 0)

        in_queue(make, steps, 2)

    def test_told_twice_of_an_end_it_stores_it_once(self, make: MakeQueue) -> None:
        """As after a connection that broke before the server's answer came."""

        async def steps(queue: Queue) -> None:
            await queue.put([message("a")])
            end = ended(await claim_one(queue), b"1")
            await queue.finish([end, end])
            await queue.finish([end])
            assert await queue.take_results(10) == [b"1"]

        in_queue(make, steps)

    def test_whoever_finishes_first_has_finished_it(self, make: MakeQueue) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            stale, held = await passed_on(first, second)
            await first.finish([ended(stale, b"of the first")])
            assert (await second.look_up([named(held.body)])).finished == {named(held.body)}
            await second.finish([ended(held, b"of the second")])
            await second.give_back([Returned(held, 1)])
            assert await second.take_results(10) == [b"of the first"]
            assert await first.claim(10, LONG) == []

        in_queue(make, steps, 2)

    def test_what_is_finished_is_known_when_it_comes_again(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            await queue.put([message("a")])
            await queue.finish([ended(await claim_one(queue), b"1")])
            await queue.put([message("a"), message("b")])
            again, other = await queue.claim(10, LONG)
            known = await queue.look_up([named(again.body), named(other.body)])
            assert known == Known(frozenset(), frozenset({named(message("a"))}))
            await queue.finish([ended(again, b"2"), ended(other, b"3")])
            assert await queue.take_results(10) == [b"1", b"3"]
            assert await queue.claim(10, LONG) == []

        in_queue(make, steps)

    def test_what_is_put_again_while_it_is_under_way_ends_with_it(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            await queue.put([message("a")])
            claimed = await claim_one(queue)
            await queue.put([message("a")])
            await queue.finish([ended(claimed, b"1")])
            assert await queue.claim(10, LONG) == []
            assert await queue.take_results(10) == [b"1"]

        in_queue(make, steps)

    def test_other_bytes_of_the_same_id_are_another_message(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            one, other = message("a", payload='{"prompt":"1"}'), message("a", payload='{"prompt":"2"}')
            await queue.put([one, other])
            claimed = await queue.claim(10, LONG)
            assert set(bodies(claimed)) == {one, other}
            await queue.finish([ended(claimed[0], b"1")])
            assert (await queue.look_up([named(each) for each in (one, other)])).finished == {
                named(claimed[0].body)
            }
            await queue.finish([ended(claimed[1], b"2")])
            assert await queue.take_results(10) == [b"1", b"2"]

        in_queue(make, steps)

    def test_dead_letters_are_kept_with_or_without_a_result(
        self, make: MakeQueue, dead: Callable[[], list[bytes]]
    ) -> None:
        async def steps(queue: Queue) -> None:
            await queue.put([message("a"), b'no "JSON" at all\xff', message("b")])
            ends = [
                Finished(
                    claimed,
                    str(number),
                    None if b"JSON" in claimed.body else b"1",
                    Ending.COMPLETED if b'"b"' in claimed.body else Ending.INVALID,
                )
                for number, claimed in enumerate(await queue.claim(10, LONG))
            ]
            await queue.finish(ends)
            await queue.finish(ends)
            assert await queue.take_results(10) == [b"1", b"1"]
            assert await queue.claim(10, LONG) == []

        in_queue(make, steps)
        assert sorted(dead()) == [b'no "JSON" at all\xff', message("a")]

    def test_each_end_is_counted_once(self, make: MakeQueue) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            assert set((await first.endings()).values()) == {0}
            stale, held = await passed_on(first, second)
            await first.finish([ended(stale, b"1", Ending.EXPIRED)])
            await second.finish([ended(held, b"2", Ending.COMPLETED)])
            await first.put([message(each) for each in "bcd"])
            claimed = await first.claim(3, LONG)
            known, *others = claimed
            ends = [ended(each, b"3") for each in others]
            await first.finish(ends)
            await second.finish([*ends, Finished(known, named(known.body).token, None, None)])
            counts = {ending.value: count for ending, count in (await second.endings()).items() if count}
            assert counts == {"expired": 1, "completed": 2}

        in_queue(make, steps, 2)

    def test_a_cancelled_id_is_known_until_it_is_put_again(self, make: MakeQueue) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            names = [named(message(each)) for each in ("a", "b")]
            await first.put([message("a"), message("b")])
            await second.cancel("a")
            await second.cancel("a")
            await second.cancel("nobody's")
            assert await first.look_up(names) == Known(frozenset({names[0]}), frozenset())
            assert len(await first.claim(10, LONG)) == 2, "whoever claims it answers it"
            await first.put([message("a", FAR + 1)])
            assert (await second.look_up(names)).cancelled == frozenset()

        in_queue(make, steps, 2)

    def test_results_are_taken_in_their_order(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            await queue.put([message(str(number), FAR + number) for number in range(6)])
            claimed = await queue.claim(10, LONG)
            await queue.finish([ended(each, b"%d" % number) for number, each in enumerate(claimed[:4])])
            await queue.finish([ended(each, b"%d" % (4 + number)) for number, each in enumerate(claimed[4:])])
            assert await queue.take_results(3) == [b"0", b"1", b"2"]
            assert await queue.take_results(10) == [b"3", b"4", b"5"]

        in_queue(make, steps)

    def test_of_many_who_finish_the_same_one_is_heard(self, make: MakeQueue) -> None:
        count = 40

        async def steps(first: Queue, second: Queue) -> None:
            await first.put([message(str(number)) for number in range(count)])
            claimed = await first.claim(count, LONG)
            ends = [[ended(each, named(each.body).id.encode())] for each in claimed]
            await asyncio.gather(*(queue.finish(end) for end in ends for queue in (first, second, first)))
            results = await second.take_results(10 * count)
            assert sorted(results) == sorted(str(number).encode() for number in range(count))

        in_queue(make, steps, 2)

    def test_two_who_finish_the_same_in_other_orders_do_not_wait_for_each_other(
        self, make: MakeQueue
    ) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            await first.put([message(str(number)) for number in range(100)])
            claimed = await first.claim(100, LONG)
            ends = [ended(each, named(each.body).id.encode()) for each in claimed]
            await asyncio.gather(first.finish(ends), second.finish(ends[::-1]))
            assert len(await first.take_results(200)) == 100

        in_queue(make, steps, 2)

    def test_of_many_who_take_results_no_two_get_the_same(self, make: MakeQueue) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            await first.put([message(str(number)) for number in range(60)])
            claimed = await first.claim(60, LONG)
            await first.finish([ended(each, named(each.body).id.encode()) for each in claimed])
            taken: list[bytes] = []

            async def take(queue: Queue) -> None:
                while found := await queue.take_results(7):
                    taken.extend(found)

            await asyncio.gather(*(take(queue) for queue in (first, second) for _ in range(4)))
            assert len(taken) == len(set(taken)) == 60

        in_queue(make, steps, 2)

    def test_it_outlives_whoever_uses_it(self, make: MakeQueue) -> None:
        async def before(queue: Queue) -> None:
            await queue.put([message("a"), message("b"), message("c")])
            await queue.cancel("c")
            claimed = await queue.claim(2, LONG)
            await queue.finish([ended(claimed[0], b"1")])
            await queue.give_back([Returned(claimed[1], 4)])

        async def after(queue: Queue) -> None:
            assert {each.body[6:9]: each.attempts for each in await queue.claim(10, LONG)}[b'"c"'] == 0
            assert (await queue.look_up([named(message("c"))])).cancelled == {named(message("c"))}
            assert await queue.take_results(10) == [b"1"]

        in_queue(make, before)
        in_queue(make, after)
