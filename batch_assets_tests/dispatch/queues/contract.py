"""What every kind of queue must do for the worker: each test runs against each kind, on a real server."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

import pytest

from batch_assets.dispatch.messages import parse
from batch_assets.dispatch.queues.base import Claimed, Finished, Known, Named, Queue, Returned
from batch_assets_tests.waiting import PATIENCE_SECONDS

MakeQueue = Callable[[], Queue]
"""Another object for the same queue, as another worker has one."""
FAR = 4_000_000_000
"""A deadline that no run of these tests reaches."""
LONG, SHORT = 600.0, 0.05
"""A lease that no test outlives, and one that is to run out."""


def message(name: str, deadline: object = FAR, payload: str = "{}") -> bytes:
    text = f'{{"id":{json.dumps(name)},"deadline":{json.dumps(deadline)},"payload":{payload}}}'
    return text.replace('"payload":{}', '"payload":{"prompt":"a"}').encode()


def named(body: bytes) -> Named:
    read = parse(body)
    return Named(read.id, read.token)


def ended(claimed: Claimed, result: bytes | None, *, is_dead: bool = False) -> Finished:
    return Finished(claimed, named(claimed.body).token, result, is_dead)


def in_queue(make: MakeQueue, steps: Callable[..., Awaitable[None]], workers: int = 1) -> None:
    """Run `steps` with so many objects for one queue, opened."""

    async def main() -> None:
        queues = [make() for _ in range(workers)]
        try:
            for queue in queues:
                await queue.open()
            await steps(*queues)
        finally:
            for queue in queues:
                await queue.close()

    asyncio.run(main())


async def claim_one(queue: Queue, lease_seconds: float = LONG) -> Claimed:
    (claimed,) = await queue.claim(10, lease_seconds)
    return claimed


async def claim_again(queue: Queue, most: int = 10) -> list[Claimed]:
    """Ask until there is something."""
    deadline = monotonic() + PATIENCE_SECONDS
    while not (found := await queue.claim(most, LONG)):
        assert monotonic() < deadline, "waited in vain: no message is delivered again"
        await asyncio.sleep(0.01)
    return found


async def passed_on(first: Queue, second: Queue) -> tuple[Claimed, Claimed]:
    """A message whose lease the first has let run out, and the second holds now."""
    await first.put([message("a")])
    stale = await claim_one(first, SHORT)
    (held,) = await claim_again(second)
    return stale, held


def bodies(claimed: Sequence[Claimed]) -> list[bytes]:
    return [each.body for each in claimed]


class QueueContract:
    """Subclasses have the fixtures `make`, for the test's own queue, and `dead`, for its dead letters."""

    def test_messages_come_in_the_order_of_their_deadlines(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            late, early, never = (
                message("late", FAR + 2),
                message("early", f"{FAR}.5"),
                message("never", None),
            )
            await queue.put([never, late, early])
            assert bodies(await queue.claim(2, LONG)) == [early, late]
            assert bodies(await queue.claim(2, LONG)) == [never]

        in_queue(make, steps)

    def test_a_claim_is_seen_by_nobody_else(self, make: MakeQueue) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            await first.put([message("a"), message("b")])
            assert bodies(await first.claim(1, LONG)) == [message("a")]
            assert bodies(await second.claim(10, LONG)) == [message("b")]
            assert await first.claim(10, LONG) == await second.claim(10, LONG) == []

        in_queue(make, steps, 2)

    def test_what_is_not_renewed_is_delivered_again_with_its_attempts(self, make: MakeQueue) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            await first.put([message("a")])
            claimed = await claim_one(first)
            assert claimed.attempts == 0
            await first.give_back([Returned(claimed, 3)])
            assert (await claim_one(first, SHORT)).attempts == 3
            again = await claim_again(second)
            assert [(each.body, each.attempts) for each in again] == [(message("a"), 3)]
            assert again[0].claim != claimed.claim

        in_queue(make, steps, 2)

    def test_extending_holds_a_claim(self, make: MakeQueue) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            await first.put([message("a"), message("b")])
            held = await first.claim(10, SHORT)
            await first.extend(held, LONG)
            await asyncio.sleep(2 * SHORT)
            assert await second.claim(10, LONG) == []
            await first.give_back([Returned(each, 0) for each in held])
            assert len(await second.claim(10, LONG)) == 2

        in_queue(make, steps, 2)

    def test_given_back_it_comes_at_once_or_after_its_pause(self, make: MakeQueue) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            await first.put([message("a")])
            await first.give_back([Returned(await claim_one(first), 1)])
            claimed = await claim_one(second)
            assert claimed.attempts == 1
            await second.give_back([Returned(claimed, 2, SHORT)])
            (claimed,) = await claim_again(first)
            assert claimed.attempts == 2
            await first.give_back([Returned(claimed, 3, LONG)])
            await asyncio.sleep(2 * SHORT)
            assert await second.claim(10, LONG) == []
            await first.put([message("a")])
            assert await second.claim(10, LONG) == [], "put again it is the same one, and still pauses"

        in_queue(make, steps, 2)

    def test_a_stale_claim_changes_nothing_for_the_new_holder(self, make: MakeQueue) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            stale, held = await passed_on(first, second)
            await first.give_back([Returned(stale, 7)])
            await first.extend([stale], 0.0)
            await first.give_back([Returned(stale, 7, SHORT)])
            await asyncio.sleep(2 * SHORT)
            assert await first.claim(10, LONG) == []
            await second.extend([held], LONG)
            await second.give_back([Returned(held, 1)])
            assert (await claim_one(first)).attempts == 1

        in_queue(make, steps, 2)

    def test_a_claim_that_ran_out_renews_nothing(self, make: MakeQueue) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            stale, held = await passed_on(first, second)
            await second.give_back([Returned(held, 0)])
            await first.extend([stale], LONG)
            await first.give_back([Returned(stale, 9, LONG)])
            assert (await claim_one(second)).attempts == 0

        in_queue(make, steps, 2)

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

    def test_the_same_bytes_put_twice_are_one_message(self, make: MakeQueue) -> None:
        async def steps(first: Queue, second: Queue) -> None:
            await first.put([message("a"), message("a")])
            await second.put([message("a")])
            claimed = await claim_one(first)
            await second.put([message("a")])
            assert await second.claim(10, LONG) == []
            await first.give_back([Returned(claimed, 2)])
            assert (await claim_one(second)).attempts == 2

        in_queue(make, steps, 2)

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
                    b'"b"' not in claimed.body,
                )
                for number, claimed in enumerate(await queue.claim(10, LONG))
            ]
            await queue.finish(ends)
            await queue.finish(ends)
            assert await queue.take_results(10) == [b"1", b"1"]
            assert await queue.claim(10, LONG) == []

        in_queue(make, steps)
        assert sorted(dead()) == [b'no "JSON" at all\xff', message("a")]

    def test_only_what_is_past_its_deadline_may_be_asked_for(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            past = [message("zero", 0), message("negative", "-1"), message("long past", 1_000_000_000)]
            await queue.put([message("a"), message("b", None), *past, b"[]"])
            assert set(bodies(await queue.claim(10, LONG, expired_only=True))) == set(past)
            assert await queue.claim(10, LONG, expired_only=True) == []
            assert len(await queue.claim(10, LONG)) == 3

        in_queue(make, steps)

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

    def test_its_depth_is_told(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            empty = await queue.depth()
            assert (empty.waiting, empty.claimed, empty.results, empty.first_deadline) == (0, 0, 0, None)
            await queue.put([message(str(number), FAR + number) for number in range(5)])
            claimed = await queue.claim(3, LONG)
            await queue.finish([ended(claimed[0], b"1")])
            await queue.give_back([Returned(claimed[1], 1, LONG)])
            depth = await queue.depth()
            assert (depth.waiting, depth.claimed, depth.results) == (2, 2, 1)
            assert depth.first_deadline == FAR + 3

        in_queue(make, steps)

    def test_a_deadline_that_nobody_set_is_none(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            await queue.put([message("a", None), b"no message"])
            assert (await queue.depth()).first_deadline is None

        in_queue(make, steps)

    def test_ten_megabytes_are_a_message(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            large = message("a", payload='{"prompt":"%s"}' % ("äß" * 2_500_000))
            await queue.put([large])
            claimed = await claim_one(queue)
            assert claimed.body == large
            await queue.extend([claimed], LONG)
            await queue.give_back([Returned(claimed, 1)])
            await queue.finish([ended(await claim_one(queue), large)])
            assert await queue.take_results(1) == [large]

        in_queue(make, steps)

    @pytest.mark.parametrize(
        "text",
        [
            '\n{"id" :\t"a",\r\n "payload": { "prompt":"a" } }\n\n',
            '{"id":"a","payload":{"prompt":"\\"\'\\\\ \\u0000 %s %1 :name {0}"}}',
            '{"id":"a","payload":{"prompt":[9007199254740993,-1e400,1.0,1.10,0.1e-2]}}',
            '{"id":"ä \U0001f600 \u2028","payload":{"prompt":"\U0010ffff\x7f\u200b"}}',
            '{"id":"a b:c\'\\"*","payload":{"prompt":1},"payload":{"prompt":2}}',
        ],
    )
    def test_bytes_stay_as_they_are(self, make: MakeQueue, text: str) -> None:
        async def steps(queue: Queue) -> None:
            body = text.encode()
            await queue.put([body])
            await queue.give_back([Returned(await claim_one(queue), 1)])
            claimed = await claim_one(queue)
            assert claimed.body == body
            await queue.cancel(named(body).id)
            assert (await queue.look_up([named(body)])).cancelled == {named(body)}
            await queue.finish([ended(claimed, b"\0\xff\r\n" + body)])
            assert await queue.take_results(1) == [b"\0\xff\r\n" + body]

        in_queue(make, steps)

    @pytest.mark.parametrize(
        "body", [b"\0\xff\n", b" ", b'{"id":"a\\u0000b","payload":{"prompt":1}}', b"[" * 9_999]
    )
    def test_what_is_no_message_is_delivered_all_the_same(self, make: MakeQueue, body: bytes) -> None:
        async def steps(queue: Queue) -> None:
            await queue.put([body])
            claimed = await claim_one(queue)
            assert claimed.body == body
            await queue.finish([Finished(claimed, "token", None, is_dead=True)])
            assert await queue.claim(10, LONG) == []

        in_queue(make, steps)

    def test_of_many_claimers_no_two_get_the_same(self, make: MakeQueue) -> None:
        count = 300

        async def steps(first: Queue, second: Queue) -> None:
            await first.put([message(str(number), FAR + number % 7) for number in range(count)])
            taken: list[Claimed] = []

            async def claim(queue: Queue) -> None:
                while found := await queue.claim(7, LONG):
                    taken.extend(found)

            await asyncio.gather(*(claim(queue) for queue in (first, second) for _ in range(8)))
            assert len(taken) == len(set(bodies(taken))) == count

        in_queue(make, steps, 2)

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

    def test_nothing_to_do_is_no_error(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            await queue.put([])
            await queue.extend([], LONG)
            await queue.finish([])
            await queue.give_back([])
            assert await queue.look_up([]) == Known(frozenset(), frozenset())
            assert await queue.claim(10, LONG) == await queue.take_results(10) == []

        in_queue(make, steps)
