"""What every kind of queue must do until a message has ended: each test runs against each kind, on a real server."""

import asyncio

import pytest

from batch_assets.dispatch.queues.base import Claimed, Ending, Finished, Known, Queue, Returned
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
    passed_on,
)
from batch_assets_tests.waiting import until


class ClaimingContract:
    """Subclasses have the fixture `make`, for the test's own queue."""

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

    def test_only_what_is_past_its_deadline_may_be_asked_for(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            past = [message("zero", 0), message("negative", "-1"), message("long past", 1_000_000_000)]
            await queue.put([message("a"), message("b", None), *past, b"[]"])
            assert set(bodies(await queue.claim(10, LONG, expired_only=True))) == set(past)
            assert await queue.claim(10, LONG, expired_only=True) == []
            assert len(await queue.claim(10, LONG)) == 3

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

    def test_what_a_dead_worker_held_waits_though_nobody_has_claimed_it(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            await queue.put([message("a", FAR + 1), message("b", FAR + 2)])
            await queue.claim(1, SHORT)

            async def waiting() -> bool:
                return (await queue.depth()).waiting == 2

            await until(waiting, "what is held no longer is not told as waiting")
            depth = await queue.depth()
            assert (depth.claimed, depth.first_deadline) == (0, FAR + 1)

        in_queue(make, steps)

    def test_a_deadline_that_nobody_set_is_none(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            await queue.put([message("a", None), b"no message", message("b", 1e300)])
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
            await queue.finish([Finished(claimed, "token", None, Ending.INVALID)])
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

    def test_nothing_to_do_is_no_error(self, make: MakeQueue) -> None:
        async def steps(queue: Queue) -> None:
            await queue.put([])
            await queue.extend([], LONG)
            await queue.finish([])
            await queue.give_back([])
            assert await queue.look_up([]) == Known(frozenset(), frozenset())
            assert await queue.claim(10, LONG) == await queue.take_results(10) == []

        in_queue(make, steps)
