"""Results and dead letters of a queue on SQS: one for each message, whatever SQS takes."""

import json
import uuid

from batch_assets.dispatch.messages import parse
from batch_assets.dispatch.queues.base import Depth, Ending
from batch_assets.dispatch.queues.sqs import SqsQueue
from batch_assets.dispatch.queues.sqs_results import beside
from batch_assets.dispatch.queues.sqs_service import MOST_BYTES
from batch_assets.requests.database import RequestsDatabase
from batch_assets_tests.dispatch.queues.sqs.steps import (
    claim,
    claimed_again,
    client,
    create,
    finished,
    message,
    opened,
    put,
    results_of,
    run,
)


def test_results_tell_their_token(queue: SqsQueue, name: str) -> None:
    put(queue, "a")
    (taken,) = claim(queue)
    run(queue.finish([finished(taken)]))
    consumer = client()
    url = consumer.get_queue_url(QueueName=f"{name}-results")["QueueUrl"]
    (found,) = consumer.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    assert found["MessageAttributes"]["token"]["StringValue"] == parse(message("a")).token


def test_finished_twice_is_one_result(queue: SqsQueue) -> None:
    put(queue, "a")
    (first,) = claim(queue, lease=0.5)
    second = claimed_again(queue)
    run(queue.finish([finished(second, b'{"id":"a","payload":1}')]))
    run(queue.finish([finished(first, b'{"id":"a","payload":2}')]))
    run(queue.finish([finished(second, b'{"id":"a","payload":3}')]))
    assert results_of(queue) == [{"id": "a", "payload": 1}]


def test_a_result_that_is_too_large_says_so(queue: SqsQueue) -> None:
    put(queue, "a", "b")
    large = b'{"id":"%s","payload":"' + MOST_BYTES * b"x" + b'"}'
    taken = claim(queue)
    run(
        queue.finish(
            [finished(each, large.replace(b"%s", parse(each.body).id.encode())) for each in taken[:1]]
            + [finished(each) for each in taken[1:]]
        )
    )
    told = {result["id"]: result for result in results_of(queue)}
    failed = told.pop(parse(taken[0].body).id)
    assert failed.keys() == {"id", "error", "error_code", "error_message"}
    assert failed["error_code"] == "INFERENCE_ERROR"
    assert "too large for SQS" in failed["error_message"]
    assert [result["status_code"] for result in told.values()] == [200]
    assert run(queue.depth()) == Depth(0, 0, 0)


def test_an_id_that_makes_a_result_too_large_does_not_block_the_queue(queue: SqsQueue) -> None:
    put(queue, "a")
    (taken,) = claim(queue)
    run(queue.finish([finished(taken, json.dumps({"id": MOST_BYTES * "i"}).encode())]))
    (told,) = results_of(queue)
    assert told["id"].startswith("iii") and told["error_code"] == "INFERENCE_ERROR"


def test_results_that_are_large_together_go_in_several_batches(queue: SqsQueue) -> None:
    ids = {f"id-{number}" for number in range(12)}
    put(queue, *ids)
    taken = claim(queue, 20)
    payload = 600_000 * "x"
    run(
        queue.finish(
            [
                finished(each, json.dumps({"id": parse(each.body).id, "payload": payload}).encode())
                for each in taken
            ]
        )
    )
    assert {result["id"] for result in results_of(queue) if result["payload"] == payload} == ids


def test_a_queue_of_results_that_takes_less_gets_an_error(name: str, database: RequestsDatabase) -> None:
    create(f"{name}-small", MaximumMessageSize="1024")
    with opened(name, database, results=f"{name}-small") as queue:
        put(queue, "a", "b", "c")
        taken = sorted(claim(queue), key=lambda each: each.body)
        long = json.dumps({"id": "b", "payload": 2_000 * "x"}).encode()
        run(queue.finish([finished(taken[0]), finished(taken[1], long), finished(taken[2])]))
        told = {result["id"]: result.get("error_code") for result in results_of(queue)}
        assert told == {"a": None, "b": "INFERENCE_ERROR", "c": None}
        assert run(queue.depth()) == Depth(0, 0, 0)


def test_characters_that_sqs_does_not_take_are_escaped(queue: SqsQueue) -> None:
    put(queue, "a")
    (taken,) = claim(queue)
    run(queue.finish([finished(taken, '{"id":"a","payload":"ä\uffff😀"}'.encode())]))
    (raw,) = run(queue.take_results(1))
    assert b"\\uffff" in raw
    assert json.loads(raw) == {"id": "a", "payload": "ä\uffff😀"}


def test_a_dead_letter_is_kept_beside_its_result(queue: SqsQueue, name: str) -> None:
    put(queue, "a")
    run(queue.finish([finished(each, ending=Ending.INVALID) for each in claim(queue)]))
    consumer = client()
    url = consumer.get_queue_url(QueueName=f"{name}-dead")["QueueUrl"]
    assert [each["Body"].encode() for each in consumer.receive_message(QueueUrl=url)["Messages"]] == [
        message("a")
    ]
    assert len(results_of(queue)) == 1


def test_fifo_queues(database: RequestsDatabase) -> None:
    name = f"queue-{uuid.uuid4().hex[:8]}.fifo"
    create(name, FifoQueue="true")
    assert beside(name, "dead") == name.replace(".fifo", "-dead.fifo")
    with opened(name, database) as queue:
        put(queue, "a", "b")
        taken = claim(queue)
        assert len(taken) == 2
        run(queue.finish([finished(each, ending=Ending.INVALID) for each in taken]))
        assert {result["id"] for result in results_of(queue)} == {"a", "b"}
        assert run(queue.depth()) == Depth(0, 0, 0)


def test_queues_that_exist_already_are_used(name: str, database: RequestsDatabase) -> None:
    create(f"{name}-results", VisibilityTimeout="7")
    with opened(name, database), opened(name, database) as queue:
        put(queue, "a")
        run(queue.finish([finished(each) for each in claim(queue)]))
        assert len(results_of(queue)) == 1
