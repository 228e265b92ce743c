"""Messages of a queue on SQS: claimed, held, given back, cancelled."""

import time

import pytest

from batch_assets.dispatch.messages import parse
from batch_assets.dispatch.queues.base import Depth, Ending, Finished, Named, Returned
from batch_assets.dispatch.queues.sqs import SqsQueue
from batch_assets.dispatch.queues.sqs_service import MOST_BYTES
from batch_assets.errors import BatchAssetsError, ConfigurationError
from batch_assets.requests.database import RequestsDatabase
from batch_assets_tests.dispatch.queues.sqs.steps import (
    LONG,
    REGION,
    claim,
    claimed_again,
    finished,
    message,
    put,
    results_of,
    run,
)
from batch_assets_tests.waiting import PATIENCE_SECONDS


def test_a_message_ends_with_one_result_and_is_gone(queue: SqsQueue) -> None:
    before = time.time()
    put(queue, "a")
    (taken,) = claim(queue)
    assert (taken.body, taken.attempts) == (message("a"), 0)
    assert taken.arrived is not None and abs(taken.arrived - before) < PATIENCE_SECONDS
    run(queue.finish([finished(taken)]))
    assert run(queue.depth()) == Depth(0, 0, 1)
    assert results_of(queue) == [{"id": "a", "payload": {}, "status_code": 200}]
    assert run(queue.depth()) == Depth(0, 0, 0)
    assert results_of(queue) == []


def test_each_end_is_counted_once(queue: SqsQueue) -> None:
    put(queue, "a", "b", "c")
    done, failed, known = claim(queue)
    ends = [finished(done), finished(failed, ending=Ending.FAILED)]
    run(queue.finish(ends))
    run(queue.finish([*ends, Finished(known, parse(known.body).token, None, None)]))
    assert {ending.value: count for ending, count in run(queue.endings()).items() if count} == {
        "completed": 1,
        "failed": 1,
    }


def test_many_at_once(queue: SqsQueue) -> None:
    ids = {f"id-{number}" for number in range(95)}
    put(queue, *ids)
    first = claim(queue, 25)
    rest = claim(queue, 1_000)
    assert len(first) == 25
    assert {parse(each.body).id for each in [*first, *rest]} == ids
    run(queue.finish([finished(each) for each in [*first, *rest]]))
    assert {result["id"] for result in results_of(queue)} == ids
    assert run(queue.depth()) == Depth(0, 0, 0)


def test_a_message_that_is_not_finished_in_its_lease_comes_again(queue: SqsQueue) -> None:
    put(queue, "a")
    assert len(claim(queue, lease=0.5)) == 1
    again = claimed_again(queue)
    assert (again.body, again.attempts) == (message("a"), 1)


def test_a_claim_is_held_for_as_long_as_was_said_last(queue: SqsQueue) -> None:
    put(queue, "a")
    taken = claim(queue, lease=LONG)
    run(queue.extend(taken, 0.5))
    assert claimed_again(queue).attempts == 1


def test_a_message_that_is_put_again_after_its_end_is_known(queue: SqsQueue) -> None:
    put(queue, "a")
    run(queue.finish([finished(each) for each in claim(queue)]))
    put(queue, "a")
    (taken,) = claim(queue)
    wanted, other = Named("a", parse(taken.body).token), Named("b", "another")
    assert run(queue.look_up([wanted, other])).finished == {wanted}
    run(queue.finish([Finished(taken, wanted.token, None, None)]))
    assert run(queue.depth()) == Depth(0, 0, 1)


def test_what_is_given_back_comes_at_once_or_after_its_pause(queue: SqsQueue) -> None:
    put(queue, "a", "b")
    now, later = sorted(claim(queue), key=lambda each: each.body)
    run(queue.give_back([Returned(now, 1), Returned(later, 1, pause=90_000)]))
    again = claimed_again(queue)
    assert (again.body, again.attempts) == (message("a"), 1)
    assert claim(queue) == []
    assert run(queue.depth()) == Depth(0, 2, 0)


def test_nothing_happens_to_a_message_that_somebody_else_has_finished(queue: SqsQueue) -> None:
    put(queue, "a", "b")
    gone, here = claim(queue)
    run(queue.finish([finished(gone)]))
    run(queue.extend([gone, here], LONG))
    run(queue.give_back([Returned(gone, 1), Returned(here, 1)]))
    assert claimed_again(queue).body == here.body


def test_an_id_is_cancelled_until_it_is_asked_anew(queue: SqsQueue) -> None:
    named, other = Named("a", "token"), Named("b", "token-b")
    run(queue.cancel("a"))
    run(queue.cancel("a"))
    assert run(queue.look_up([named, other])).cancelled == {named}
    put(queue, "a")
    assert run(queue.look_up([named, other])).cancelled == frozenset()


def test_no_message_is_known_to_have_passed_its_deadline(queue: SqsQueue) -> None:
    put(queue, "a")
    assert run(queue.claim(10, LONG, expired_only=True)) == []
    assert run(queue.depth()) == Depth(1, 0, 0)


def test_what_cannot_be_put_is_said(queue: SqsQueue) -> None:
    with pytest.raises(BatchAssetsError, match="SQS takes text only"):
        run(queue.put([b"\xff"]))
    with pytest.raises(BatchAssetsError, match=r"SQS refuses it: .*1048576"):
        run(queue.put([message("x" * MOST_BYTES)]))


def test_a_queue_that_does_not_exist_is_said(database: RequestsDatabase) -> None:
    with pytest.raises(
        ConfigurationError, match=r"queue nowhere: there is no such queue .* us-east-1; create"
    ):
        run(SqsQueue(REGION, "nowhere", database).open())
