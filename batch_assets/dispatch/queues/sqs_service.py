"""Calls of Amazon SQS: what fails for now, what fails for good, and how much goes into one call.

What is put where, and in which order, is in `sqs.py` and `sqs_results.py`.
"""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from batch_assets.dispatch.queues.base import QueueAway
from batch_assets.errors import BatchAssetsError, ConfigurationError
from batch_assets.plain_text import plain_logger
from batch_assets.storage.credentials import aws_session

logger = plain_logger(__name__)
Item = TypeVar("Item")
MOST_BYTES = 1_048_576
"""What SQS takes: as one message with its attributes, and as one batch."""
MOST_ENTRIES = 10
LONGEST_HOLD_SECONDS = 43_200
CONNECT_SECONDS, READ_SECONDS, TRIES = 10, 10, 2
CALLS_AT_ONCE = 8
CLOCK_SECONDS = 2.0
"""The service tells its time in whole seconds: what differs by less is no difference."""
KEPT_SECONDS = 14 * 86_400
"""So long SQS keeps results and dead letters that nobody takes, in queues made here: as long as it can."""
_NO_QUEUE = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
_DENIED = frozenset(
    {
        "AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "InvalidSecurity",
        "KMS.AccessDeniedException", "KmsAccessDenied", "OptInRequired", "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)  # fmt: skip
_REFUSED = frozenset(
    {
        "BatchRequestTooLong", "InvalidAttributeValue", "InvalidMessageContents", "InvalidParameterValue",
        "MessageNotInflight", "ReceiptHandleIsInvalid",
    }
)  # fmt: skip
"""What is told of a request as it is written: it never helps to send it once more."""


class RequestRefused(QueueAway):
    """The service does not take this request, whenever it comes."""


class NoQueue(ConfigurationError):
    """There is no queue of that name."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an entry of a batch has failed; `for_good` where it is the entry's own fault."""

    reason: str
    for_good: bool


class SqsService:
    """SQS in one region, called from threads. `name` is the queue that messages of errors are about."""

    def __init__(self, region: str, name: str) -> None:
        self.shown = f"SQS queue {name} in {region}"
        self.clock_ahead = 0.0
        self.calls = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix=f"sqs-{name}")
        self._region = region
        self._client: Any = None

    def connect(self) -> None:
        """Make the client; asks nothing yet."""
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": TRIES},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=CALLS_AT_ONCE + 1,
        )
        if self._client is None:
            self._client = aws_session().client("sqs", region_name=self._region, config=config)

    def url_of(self, name: str) -> str | None:
        """The URL of a queue, None where there is no such queue."""
        try:
            return self.ask("get_queue_url", QueueName=name)["QueueUrl"]
        except NoQueue:
            return None

    def create(self, name: str) -> str:
        """Make a queue that keeps what it is given; its URL. Raises ConfigurationError where SQS refuses."""
        kind = {"FifoQueue": "true"} if is_fifo(name) else {}
        attributes = {"MessageRetentionPeriod": str(KEPT_SECONDS)} | kind
        try:
            url = self.ask("create_queue", QueueName=name, Attributes=attributes)["QueueUrl"]
        except RequestRefused as error:
            raise ConfigurationError(
                f"queue {name}: SQS in the region {self._region} does not create it: {error}; "
                "create it yourself, or name another one"
            ) from error
        logger.info("queue %s: created on SQS in the region %s", name, self._region)
        return url

    def receive(self, url: str, count: int, seconds: float, wait: int) -> list[dict[str, Any]]:
        """At most `count` messages, each held for so many seconds; `wait` for the first one."""
        answer = self.ask(
            "receive_message",
            QueueUrl=url,
            MaxNumberOfMessages=count,
            VisibilityTimeout=whole_seconds(seconds),
            WaitTimeSeconds=wait,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        self._hear_clock(answer)
        return answer.get("Messages", [])

    def _hear_clock(self, answer: dict[str, Any]) -> None:
        try:
            date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
            ahead = parsedate_to_datetime(date).timestamp() + 0.5 - time.time()
        except (KeyError, TypeError, ValueError):
            return
        self.clock_ahead = ahead if abs(ahead) > CLOCK_SECONDS else 0.0

    def delete(self, url: str, claims: Sequence[str]) -> dict[str, Failure]:
        """Delete messages; those that were not, by their claim."""
        batches = batched([{"ReceiptHandle": claim} for claim in dict.fromkeys(claims)])
        answers = self.calls.map(lambda batch: self.batch("delete_message_batch", url, batch), batches)
        return {
            batch[index]["ReceiptHandle"]: failure
            for batch, failed in zip(batches, answers, strict=True)
            for index, failure in failed.items()
        }

    def count(self, url: str) -> tuple[int, int]:
        """About how many messages wait in a queue, and how many are held."""
        names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "NotVisible", "Delayed")]
        found = self.ask("get_queue_attributes", QueueUrl=url, AttributeNames=names).get("Attributes", {})
        waiting, *held = (int(found.get(name, 0)) for name in names)
        return waiting, sum(held)

    def batch(self, operation: str, url: str, entries: Sequence[dict[str, Any]]) -> dict[int, Failure]:
        """Ask for at most ten at once; which of them have failed, and why."""
        named = [{"Id": str(index), **entry} for index, entry in enumerate(entries)]
        try:
            answer = self.ask(operation, QueueUrl=url, Entries=named)
        except RequestRefused as error:
            if len(entries) == 1:
                return {0: Failure(str(error), True)}
            # One of them is at fault, and the others must not suffer for it.
            alone = {index: self.batch(operation, url, [entry]) for index, entry in enumerate(entries)}
            return {index: failed[0] for index, failed in alone.items() if failed}
        done = {each["Id"] for each in answer.get("Successful", [])}
        failed = {
            each["Id"]: Failure(f"{each.get('Code')}: {each.get('Message')}", each.get("SenderFault", False))
            for each in answer.get("Failed", [])
        }
        unheard = Failure("SQS says nothing of an entry", False)
        return {
            index: failed.get(str(index), unheard) for index in range(len(entries)) if str(index) not in done
        }

    def ask(self, operation: str, **arguments: Any) -> Any:
        """One call. Raises QueueAway, RequestRefused, NoQueue, and ConfigurationError for a lack of rights."""
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        try:
            return getattr(self._client, operation)(**arguments)
        except ClientError as error:
            raise self._told(error.response.get("Error", {})) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise ConfigurationError(
                f"{self.shown}: {error}; set AWS_PROFILE, or what else leads to credentials"
            ) from error
        except (BotoCoreError, OSError) as error:
            raise QueueAway(f"{error} ({self.shown})") from error

    def away(self, failure: Failure) -> QueueAway:
        """The failure of an entry as an error of the queue."""
        return QueueAway(f"{failure.reason} ({self.shown})")

    def _told(self, said: Any) -> BatchAssetsError:
        code = str(said.get("Code", ""))
        told = f"{code}: {said.get('Message', '')} ({self.shown})"
        if code in _NO_QUEUE:
            return NoQueue(f"{told}; create the queue, or name another queue or region")
        if code in _DENIED:
            return ConfigurationError(
                f"{told}; look at the credentials, and at what they may do with the queue"
            )
        return RequestRefused(told) if code.rpartition(".")[2] in _REFUSED else QueueAway(told)


def is_fifo(name: str) -> bool:
    """Whether a queue keeps an order: SQS has that in its name."""
    return name.endswith(".fifo")


def whole_seconds(seconds: float) -> int:
    """As SQS takes a time for which a message is held."""
    return min(max(0, math.ceil(seconds)), LONGEST_HOLD_SECONDS)


def entry_of(text: str, group: str = "") -> dict[str, Any]:
    """A message to send. `group` is for FIFO queues: one for each message, so that none waits for another."""
    grouped = {"MessageGroupId": group, "MessageDeduplicationId": group} if group else {}
    return {"MessageBody": text, **grouped}


def batched(items: Sequence[Item], size_of: Callable[[Item], int] = lambda _: 0) -> list[list[Item]]:
    """As many in a batch as SQS takes at once, by their number and their bytes."""
    batches: list[list[Item]] = []
    total = 0
    for item in items:
        size = size_of(item)
        total += size
        if not batches or len(batches[-1]) == MOST_ENTRIES or total > MOST_BYTES:
            batches.append([])
            total = size
        batches[-1].append(item)
    return batches
