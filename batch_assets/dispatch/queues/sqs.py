"""A queue on Amazon SQS, with the database of requests for what SQS has no place for.

A message ends in this order:

1. Its token and its result are written to the database, in one transaction; of two ends of a message the
   first counts. From here on the result is not lost, and the message, delivered again, is not asked again.
2. The result is sent to the queue of results, and then taken out of the database.
3. The message is deleted from its queue.

After a kill between 1 and 2, the result is sent by whichever process uses the queue with this database next,
`remembered.HELD_SECONDS` after the kill at the earliest. A result comes twice where a process is killed after
SQS has taken it and before the database knows, where a process stands still for so long while it sends, or
where SQS's answer is lost; a FIFO queue drops the second one, if it comes within five minutes. After a kill
before 1, the message is asked again. All of this needs the database to be there again: workers of one queue
share one, and whoever takes another one may see calls and results twice.

SQS counts deliveries, not tries: a message that was given back without a call has one more attempt, too. It
holds a message for twelve hours at most, and orders by no deadline.
"""

import asyncio
import functools
import json
import math
import re
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import msgspec

from batch_assets.dispatch.messages import InvalidMessage, parse, token_of
from batch_assets.dispatch.queues.base import Claimed, Depth, Finished, Known, Named, QueueAway, Returned
from batch_assets.dispatch.queues.remembered import HELD_SECONDS, Remembered, Unsent
from batch_assets.dispatch.results import ErrorCode
from batch_assets.errors import BatchAssetsError, ConfigurationError
from batch_assets.plain_text import plain_logger
from batch_assets.requests.database import DatabaseAway, RequestsDatabase
from batch_assets.storage.credentials import aws_session

logger = plain_logger(__name__)
Made = TypeVar("Made")
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
_LONGEST_ID = 10_000
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
_NOT_TAKEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Refused(QueueAway):
    """The service does not take this request, whenever it comes."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an entry of a batch has failed; `for_good` where it is the entry's own fault."""

    reason: str
    for_good: bool


@dataclass(slots=True)
class _Sending:
    """What has become of one batch of results or dead letters."""

    sent: list[Unsent] = field(default_factory=list)
    refused: list[Unsent] = field(default_factory=list)
    error: BatchAssetsError | None = None


class _Id(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw(b"null")


class SqsQueue:
    """Messages in the queue `name` of a region, their results in `results`, dead letters in `{name}-dead`."""

    is_ordered = False

    def __init__(
        self, region: str, name: str, database: RequestsDatabase, results: str | None = None
    ) -> None:
        self.name = name
        self.clock_ahead = 0.0
        self._region = region
        self._results = results or beside(name, "results")
        self._shown = f"SQS queue {name} in {region}"
        self._remembered = Remembered(database, f"sqs:{region}/{name}")
        self._sender = uuid.uuid4().hex
        self._look_at = 0.0
        self._client: Any = None
        self._url = self._results_url = self._dead_url = ""
        self._calls = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix=f"sqs-{name}")
        # One thread: a result that is being sent is not sent beside that.
        self._ends = ThreadPoolExecutor(1, thread_name_prefix=f"sqs-ends-{name}")

    async def open(self) -> None:
        await self._do(self._open, self._ends)

    def _open(self) -> None:
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": TRIES},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=CALLS_AT_ONCE + 1,
        )
        self._remembered.prepare()
        if self._client is None:
            self._client = aws_session().client("sqs", region_name=self._region, config=config)
        url = self._url_of(self.name)
        if url is None:
            raise ConfigurationError(
                f"queue {self.name}: there is no such queue on SQS in the region {self._region}; create it, "
                "or name another queue or region"
            )
        self._url = url
        self._results_url = self._url_of(self._results) or self._create(self._results)
        dead = beside(self.name, "dead")
        self._dead_url = self._url_of(dead) or self._create(dead)
        self._send_unsent()

    def _url_of(self, name: str) -> str | None:
        try:
            return self._ask(self._client.get_queue_url, QueueName=name)["QueueUrl"]
        except _NoQueue:
            return None

    def _create(self, name: str) -> str:
        kind = {"FifoQueue": "true"} if is_fifo(name) else {}
        attributes = {"MessageRetentionPeriod": str(KEPT_SECONDS)} | kind
        try:
            url = self._ask(self._client.create_queue, QueueName=name, Attributes=attributes)["QueueUrl"]
        except _Refused as error:
            raise ConfigurationError(
                f"queue {name}: SQS in the region {self._region} does not create it: {error}; "
                "create it yourself, or name another one"
            ) from error
        logger.info("queue %s: created on SQS in the region %s", name, self._region)
        return url

    async def close(self) -> None:
        for threads in (self._ends, self._calls):
            threads.shutdown(wait=False)

    async def put(self, bodies: Sequence[bytes]) -> None:
        """Add messages, in this order. Raises BatchAssetsError for one that SQS never takes."""
        if not bodies:
            return
        read = [_read(body) for body in bodies]
        ids = {message_id for message_id, _ in read if message_id is not None}
        await self._do(lambda: self._remembered.ask_anew(ids), self._calls)
        entries: list[dict[str, Any]] = []
        for number, (body, (_, token)) in enumerate(zip(bodies, read, strict=True)):
            try:
                entries.append(_entry(body.decode(), token if is_fifo(self.name) else ""))
            except UnicodeDecodeError as error:
                raise BatchAssetsError(
                    f"queue {self.name}: message {number}: {error}; SQS takes text only"
                ) from None

        def send() -> None:
            for batch in _batches(entries, _entry_size):
                for index, failure in self._batch(self._client.send_message_batch, self._url, batch).items():
                    if failure.for_good:
                        start = batch[index]["MessageBody"][:80]
                        raise BatchAssetsError(
                            f"queue {self.name}: message {start!r}: SQS refuses it: {failure.reason}"
                        )
                    raise QueueAway(f"{failure.reason} ({self._shown})")

        await self._do(send, self._calls)

    async def claim(self, most: int, lease_seconds: float, *, expired_only: bool = False) -> list[Claimed]:
        if time.monotonic() >= self._look_at:
            # What a process that died has left is sent though no message may come.
            await self._do(self._send_unsent, self._ends)
        if expired_only:
            return []
        return [_claimed(message) for message in await self._receive(self._url, most, lease_seconds)]

    async def _receive(self, url: str, most: int, seconds: float, wait: int = 0) -> list[dict[str, Any]]:
        """Up to `most` messages. Every call is paid for: one goes ahead, more follow while messages come."""
        found: dict[str, dict[str, Any]] = {}
        asked = {
            "QueueUrl": url,
            "VisibilityTimeout": _whole_seconds(seconds),
            "MessageSystemAttributeNames": ["ApproximateReceiveCount", "SentTimestamp"],
        }

        def receive(count: int, wait: int) -> list[dict[str, Any]]:
            answer = self._ask(
                self._client.receive_message, MaxNumberOfMessages=count, WaitTimeSeconds=wait, **asked
            )
            self._hear_clock(answer)
            return answer.get("Messages", [])

        at_once = 1
        while (left := most - len(found)) > 0:
            counts = [min(MOST_ENTRIES, left - start) for start in range(0, left, MOST_ENTRIES)][:at_once]
            answers = await asyncio.gather(
                *(self._do(functools.partial(receive, count, wait), self._calls) for count in counts),
                return_exceptions=True,
            )
            # Of one that comes twice, the last claim is the one that holds.
            found |= {
                message["MessageId"]: message
                for answer in answers
                if not isinstance(answer, BaseException)
                for message in answer
            }
            errors = [answer for answer in answers if isinstance(answer, BaseException)]
            if errors and not found:
                raise errors[0]
            if errors or not all(answers):
                break
            at_once, wait = CALLS_AT_ONCE, 0
        return list(found.values())

    def _hear_clock(self, answer: dict[str, Any]) -> None:
        try:
            date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
            ahead = parsedate_to_datetime(date).timestamp() + 0.5 - time.time()
        except (KeyError, TypeError, ValueError):
            return
        self.clock_ahead = ahead if abs(ahead) > CLOCK_SECONDS else 0.0

    async def extend(self, messages: Sequence[Claimed], lease_seconds: float) -> None:
        await self._hold([(message.claim, _whole_seconds(lease_seconds)) for message in messages])

    async def give_back(self, returned: Sequence[Returned]) -> None:
        """Have the messages delivered again. Who counts tries is SQS: `attempts` is not kept."""
        await self._hold([(each.message.claim, _whole_seconds(each.pause)) for each in returned])

    async def _hold(self, claims: Sequence[tuple[str, int]]) -> None:
        entries = [{"ReceiptHandle": claim, "VisibilityTimeout": seconds} for claim, seconds in claims]
        # An entry fails where the claim has passed to somebody else; else its lease ends by itself.
        await asyncio.gather(
            *(
                self._do(
                    lambda batch=batch: self._batch(
                        self._client.change_message_visibility_batch, self._url, batch
                    ),
                    self._calls,
                )
                for batch in _batches(entries)
            )
        )

    async def look_up(self, names: Sequence[Named]) -> Known:
        if not names:
            return Known(frozenset(), frozenset())
        return await self._do(lambda: self._remembered.look_up(names), self._calls)

    async def cancel(self, message_id: str) -> None:
        await self._do(lambda: self._remembered.cancel(message_id), self._calls)

    # Ending: see the order in the text of this module.

    async def finish(self, ended: Sequence[Finished]) -> None:
        def end() -> None:
            self._remembered.finish([_taken(each) for each in ended], self._sender)
            self._send_unsent()
            failed = self._delete(self._url, [each.message.claim for each in ended])
            # Where the claim has passed to somebody else, they find the token and delete the message.
            self._raise_away(failure for failure in failed.values() if not failure.for_good)

        if ended:
            await self._do(end, self._ends)

    def _send_unsent(self) -> None:
        while unsent := self._remembered.take_unsent(self._sender):
            batches: list[list[Unsent]] = []
            for is_dead in (False, True):
                batches += _batches([each for each in unsent if each.is_dead is is_dead], _unsent_size)
            sendings = list(self._calls.map(self._send, batches))
            self._remembered.note_sent([each for sending in sendings for each in sending.sent])
            for refused in (each for sending in sendings for each in sending.refused):
                self._remembered.bury(refused)
            for sending in sendings:
                if sending.error is not None:
                    raise sending.error
        self._look_at = time.monotonic() + HELD_SECONDS / 4

    def _send(self, batch: Sequence[Unsent]) -> _Sending:
        sending = _Sending()
        try:
            for each, failure in self._send_all(batch):
                if failure is None:
                    sending.sent.append(each)
                elif not failure.for_good:
                    sending.error = QueueAway(f"{failure.reason} ({self._shown})")
                elif each.is_dead:
                    logger.warning(
                        "queue %s: a dead letter stays in the database: %s", self.name, failure.reason
                    )
                    sending.refused.append(each)
                else:
                    self._send_refusal(each, failure.reason, sending)
        except BatchAssetsError as error:
            sending.error = error
        return sending

    def _send_refusal(self, refused: Unsent, reason: str, sending: _Sending) -> None:
        """Send an error in place of a result; where SQS refuses that too, the result is not what is wrong."""
        instead = replace(refused, body=_error(refused.body, f"SQS refuses the result: {reason}"))
        for _, failure in self._send_all([instead]):
            if failure is None:
                sending.sent.append(refused)
                logger.warning("queue %s: SQS refuses a result: %s", self.name, reason)
            else:
                sending.error = QueueAway(f"{failure.reason} ({self._shown}, queue {self._results})")

    def _send_all(self, batch: Sequence[Unsent]) -> list[tuple[Unsent, _Failure | None]]:
        """All results or all dead letters, each with why it was not taken."""
        is_dead = batch[0].is_dead
        url = self._dead_url if is_dead else self._results_url
        grouped = is_fifo(self.name if is_dead else self._results)
        entries: list[dict[str, Any]] = []
        for each in batch:
            entry = _entry(each.body.decode(errors="replace"), each.token if grouped else "")
            if not is_dead:  # a dead letter may be as long as SQS takes already
                entry["MessageAttributes"] = {"token": {"DataType": "String", "StringValue": each.token}}
            entries.append(entry)
        failed = self._batch(self._client.send_message_batch, url, entries)
        return [(each, failed.get(index)) for index, each in enumerate(batch)]

    def _delete(self, url: str, claims: Sequence[str]) -> dict[str, _Failure]:
        """Delete messages; those that were not, by their claim."""
        batches = list(_batches([{"ReceiptHandle": claim} for claim in dict.fromkeys(claims)]))
        answers = self._calls.map(
            lambda batch: self._batch(self._client.delete_message_batch, url, batch), batches
        )
        return {
            batch[index]["ReceiptHandle"]: failure
            for batch, failed in zip(batches, answers, strict=True)
            for index, failure in failed.items()
        }

    def _raise_away(self, failures: Iterable[_Failure]) -> None:
        for failure in failures:
            raise QueueAway(f"{failure.reason} ({self._shown})")

    # For consumers, and for people.

    async def take_results(self, most: int) -> list[bytes]:
        """Take results out; about the oldest first, as far as SQS knows."""
        # With a wait SQS asks all its servers: no answer means that there is nothing.
        found = await self._receive(self._results_url, most, 30.0, wait=1)
        claims = [message["ReceiptHandle"] for message in found]
        failed = await self._do(lambda: self._delete(self._results_url, claims), self._ends)
        if found and len(failed) == len(found):
            self._raise_away(failed.values())
        # What is not deleted comes again.
        return [message["Body"].encode() for message in found if message["ReceiptHandle"] not in failed]

    async def depth(self) -> Depth:
        names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "NotVisible", "Delayed")]

        def count(url: str) -> list[int]:
            found = self._ask(self._client.get_queue_attributes, QueueUrl=url, AttributeNames=names)
            return [int(found.get("Attributes", {}).get(name, 0)) for name in names]

        (waiting, held, delayed), results = await asyncio.gather(
            self._do(lambda: count(self._url), self._calls),
            self._do(lambda: count(self._results_url), self._calls),
        )
        return Depth(waiting, held + delayed, results[0])

    # Asking the service.

    def _batch(
        self, call: Callable[..., Any], url: str, entries: Sequence[dict[str, Any]]
    ) -> dict[int, _Failure]:
        """Ask for at most ten at once; which of them have failed, and why."""
        named = [{"Id": str(index), **entry} for index, entry in enumerate(entries)]
        try:
            answer = self._ask(call, QueueUrl=url, Entries=named)
        except _Refused as error:
            if len(entries) == 1:
                return {0: _Failure(str(error), True)}
            # One of them is at fault, and the others must not suffer for it.
            alone = {index: self._batch(call, url, [entry]) for index, entry in enumerate(entries)}
            return {index: failed[0] for index, failed in alone.items() if failed}
        done = {each["Id"] for each in answer.get("Successful", [])}
        failed = {
            each["Id"]: _Failure(f"{each.get('Code')}: {each.get('Message')}", each.get("SenderFault", False))
            for each in answer.get("Failed", [])
        }
        unheard = _Failure("SQS says nothing of an entry", False)
        return {
            index: failed.get(str(index), unheard) for index in range(len(entries)) if str(index) not in done
        }

    def _ask(self, call: Callable[..., Any], **arguments: Any) -> Any:
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        try:
            return call(**arguments)
        except ClientError as error:
            raise self._told(error.response.get("Error", {})) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise ConfigurationError(
                f"{self._shown}: {error}; set AWS_PROFILE, or what else leads to credentials"
            ) from error
        except (BotoCoreError, OSError) as error:
            raise QueueAway(f"{error} ({self._shown})") from error

    def _told(self, said: Any) -> BatchAssetsError:
        code = str(said.get("Code", ""))
        told = f"{code}: {said.get('Message', '')} ({self._shown})"
        if code in _NO_QUEUE:
            return _NoQueue(f"{told}; create the queue, or name another queue or region")
        if code in _DENIED:
            return ConfigurationError(
                f"{told}; look at the credentials, and at what they may do with the queue"
            )
        return _Refused(told) if code.rpartition(".")[2] in _REFUSED else QueueAway(told)

    async def _do(self, step: Callable[[], Made], threads: ThreadPoolExecutor) -> Made:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, step)
        except DatabaseAway as error:
            raise QueueAway(str(error)) from error


class _NoQueue(ConfigurationError):
    pass


def beside(name: str, kind: str) -> str:
    """The name of a queue that belongs to another one: `x.fifo` has `x-results.fifo`."""
    return f"{name.removesuffix('.fifo')}-{kind}.fifo" if is_fifo(name) else f"{name}-{kind}"


def is_fifo(name: str) -> bool:
    """Whether a queue keeps an order: SQS has that in its name."""
    return name.endswith(".fifo")


def _whole_seconds(seconds: float) -> int:
    return min(max(0, math.ceil(seconds)), LONGEST_HOLD_SECONDS)


def _claimed(message: dict[str, Any]) -> Claimed:
    known = message.get("Attributes", {})
    sent = known.get("SentTimestamp")
    return Claimed(
        message["Body"].encode(errors="replace"),
        message["ReceiptHandle"],
        max(0, int(known.get("ApproximateReceiveCount", 1)) - 1),
        None if sent is None else int(sent) / 1000,
    )


def _read(body: bytes) -> tuple[str | None, str]:
    """The id and the token of a message; the worker says what is wrong with one that has none."""
    try:
        message = parse(body)
    except InvalidMessage:
        return None, token_of("", "", body)
    return message.id, message.token


def _entry(text: str, group: str = "") -> dict[str, Any]:
    """`group` is for FIFO queues: a group for each message, so that none waits for another."""
    grouped = {"MessageGroupId": group, "MessageDeduplicationId": group} if group else {}
    return {"MessageBody": text, **grouped}


def _entry_size(entry: dict[str, Any]) -> int:
    return len(entry["MessageBody"].encode())


def _size(token: str, body: bytes) -> int:
    return len(body) + len("token" + "String" + token)


def _unsent_size(unsent: Unsent) -> int:
    return len(unsent.body) if unsent.is_dead else _size(unsent.token, unsent.body)


def _batches(items: Sequence[Item], size_of: Callable[[Item], int] = lambda _: 0) -> list[list[Item]]:
    """As many in a batch as SQS takes at once."""
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


def _taken(end: Finished) -> Finished:
    """With the result as SQS takes it: not too long, and without characters that JSON can escape."""
    if end.result is None:
        return end
    text = _NOT_TAKEN.sub(lambda found: f"\\u{ord(found[0]):04x}", end.result.decode(errors="replace"))
    result = text.encode()
    if _size(end.token, result) > MOST_BYTES:
        result = _error(
            result, f"the result has {len(result)} bytes and is too large for SQS, which takes {MOST_BYTES}"
        )
    return replace(end, result=result)


def _error(result: bytes, reason: str) -> bytes:
    """What is said in place of a result, with the id of it."""
    try:
        message_id: Any = json.loads(bytes(msgspec.json.decode(result, type=_Id).id))
    except (msgspec.DecodeError, ValueError):
        message_id = None
    if isinstance(message_id, str) and len(message_id) > _LONGEST_ID:
        message_id = message_id[:_LONGEST_ID]  # it is why the result is too long, perhaps
    told = {
        "id": message_id,
        "error": reason,
        "error_code": ErrorCode.INFERENCE_ERROR.value,
        "error_message": reason,
    }
    return json.dumps(told).encode()
