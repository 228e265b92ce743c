"""A queue of state changes that EventBridge feeds. What an event says is only a wake-up.

Which job an event is of is told by each service's own reader.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from batch_assets.executors.aws.errors import error_message
from batch_assets.executors.deferred import Event, Unanswered

EVENTS_AT_ONCE = 10  # the most that SQS hands out or deletes in one call
logger = logging.getLogger(__name__)

Reader = Callable[[dict[str, Any]], tuple[str | None, bool]]
"""From an EventBridge event to (the job's id, whether it goes on). KeyError, TypeError, … for what is no such event."""


def receive_events(sqs: Any, queue_url: str, most: int, read: Reader) -> list[Event]:
    """Events that wait in the queue, at most `most`. Raises Unanswered."""
    events: list[Event] = []
    try:
        while len(events) < most:
            answer = sqs.receive_message(
                QueueUrl=queue_url,
                MaxNumberOfMessages=EVENTS_AT_ONCE,
                WaitTimeSeconds=0,
                AttributeNames=["ApproximateReceiveCount"],
            )
            messages = answer.get("Messages", ())
            events += [_event(message, read) for message in messages]
            if len(messages) == 0:
                break
    except Exception as error:
        if events:  # what came is worth its turn; the rest comes again
            return events
        raise Unanswered(f"queue {queue_url}: {error_message(error)}") from error
    return events


def delete_events(sqs: Any, queue_url: str, events: Sequence[Event]) -> None:
    """Take events out of the queue; one that stays comes again and changes nothing."""
    for start in range(0, len(events), EVENTS_AT_ONCE):
        some = events[start : start + EVENTS_AT_ONCE]
        entries = [{"Id": str(number), "ReceiptHandle": event.receipt} for number, event in enumerate(some)]
        try:
            sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries)
        except Exception as error:
            logger.warning("queue %s: events not deleted: %s", queue_url, error_message(error))


def _event(message: dict[str, Any], read: Reader) -> Event:
    """An event of a job, plain or within an SNS envelope; one of no job for anything else."""
    receipt = message["ReceiptHandle"]
    try:
        event = orjson.loads(message.get("Body", ""))
        if isinstance(event, dict) and isinstance(event.get("Message"), str):
            event = orjson.loads(event["Message"])
        job_id, under_way = read(event)
        seen = int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))
        return Event(job_id, receipt, under_way, seen)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, IndexError, AttributeError):
        return Event(None, receipt)
