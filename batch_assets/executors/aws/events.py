"""A queue of state changes that EventBridge feeds, of one service or of several: an event is only a wake-up."""

from collections.abc import Sequence
from typing import Any

import orjson

from batch_assets.executors.aws.errors import told
from batch_assets.executors.service_jobs import Event, Unanswered
from batch_assets.plain_text import plain_logger

EVENTS_AT_ONCE = 10  # the most that SQS hands out or deletes in one call
logger = plain_logger(__name__)

UNDER_WAY = frozenset(
    {"Submitted", "Validating", "Scheduled", "InProgress", "Stopping"}  # Bedrock and SageMaker
    | {"SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"}  # AWS Batch
)
"""Where a job stands that goes on; any other word may mean its end."""


def receive_events(sqs: Any, queue_url: str, most: int) -> list[Event]:
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
            events += [_event(message) for message in messages]
            if len(messages) == 0:
                break
    except Exception as error:
        if events:  # what came is worth its turn; the rest comes again
            return events
        raise Unanswered(f"queue {queue_url}: {told(error)}") from error
    return events


def delete_events(sqs: Any, queue_url: str, events: Sequence[Event]) -> None:
    """Take events out of the queue; one that stays comes again and changes nothing."""
    for start in range(0, len(events), EVENTS_AT_ONCE):
        some = events[start : start + EVENTS_AT_ONCE]
        entries = [{"Id": str(number), "ReceiptHandle": event.receipt} for number, event in enumerate(some)]
        try:
            sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries)
        except Exception as error:
            logger.warning("queue %s: events not deleted: %s", queue_url, told(error))


def _event(message: dict[str, Any]) -> Event:
    """An event of a job, plain or within an SNS envelope; one of no job for anything else."""
    receipt = message["ReceiptHandle"]
    try:
        event = orjson.loads(message.get("Body", ""))
        if isinstance(event, dict) and isinstance(event.get("Message"), str):
            event = orjson.loads(event["Message"])
        job_id, under_way = job_of(event)
        seen = int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))
        return Event(job_id, receipt, under_way, seen)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, IndexError, AttributeError):
        return Event(None, receipt)


def job_of(event: dict[str, Any]) -> tuple[str, bool]:
    """The id of the job that an EventBridge event of any of the services is of, and whether it goes on.

    Of a child of an array, its array's. KeyError, TypeError, … for what is no such event.
    """
    detail = event["detail"]
    if "TransformJobName" in detail:
        return str(detail["TransformJobName"]), detail.get("TransformJobStatus") in UNDER_WAY
    if "jobId" in detail:
        return str(detail["jobId"]).split(":", 1)[0], detail["status"] in UNDER_WAY
    return str(detail.get("batchJobArn") or event["resources"][0]), detail.get("status") in UNDER_WAY
