"""How the ends of messages reach SQS: results and dead letters are sent from the database, until SQS has taken them.

The order of the steps, and what a kill between two of them costs, is in `sqs.py`.
"""

import json
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from batch_assets.dispatch.queues.base import Finished
from batch_assets.dispatch.queues.outbox import HELD_SECONDS, Outbox, Unsent
from batch_assets.dispatch.queues.sqs_service import (
    MOST_BYTES,
    Failure,
    SqsService,
    batched,
    entry_of,
    is_fifo,
)
from batch_assets.dispatch.results import ErrorCode
from batch_assets.errors import BatchAssetsError
from batch_assets.plain_text import plain_logger

logger = plain_logger(__name__)
_LONGEST_ID = 10_000
_NOT_TAKEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(slots=True)
class _Sending:
    """What has become of one batch of results or dead letters."""

    sent: list[Unsent] = field(default_factory=list)
    refused: list[Unsent] = field(default_factory=list)
    error: BatchAssetsError | None = None


class _Id(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw(b"null")


class SqsResults:
    """The queue of results and that of dead letters of the queue `name`; its methods are called by one thread."""

    def __init__(self, service: SqsService, name: str, results: str, outbox: Outbox) -> None:
        self.name = results
        self.url = ""
        self._queue = name
        self._dead = beside(name, "dead")
        self._dead_url = ""
        self._service = service
        self._outbox = outbox
        self._sender = uuid.uuid4().hex
        self._look_at = 0.0

    def open(self) -> None:
        """Find the two queues; they are made where they are missing."""
        self.url = self._service.url_of(self.name) or self._service.create(self.name)
        self._dead_url = self._service.url_of(self._dead) or self._service.create(self._dead)

    def is_due(self) -> bool:
        """Whether it is time to look for what a process that died has left."""
        return time.monotonic() >= self._look_at

    def store(self, ended: Sequence[Finished]) -> None:
        """Write the ends to the database, of which the first of each message counts, and send them."""
        self._outbox.add([_taken(each) for each in ended], self._sender)
        self.send_unsent()

    def send_unsent(self) -> None:
        """Send what is in the database: by this process, or left by one that died."""
        while unsent := self._outbox.take(self._sender):
            batches: list[list[Unsent]] = []
            for is_dead in (False, True):
                batches += batched([each for each in unsent if each.is_dead is is_dead], _unsent_size)
            sendings = list(self._service.calls.map(self._send, batches))
            self._outbox.remove([each for sending in sendings for each in sending.sent])
            for refused in (each for sending in sendings for each in sending.refused):
                self._outbox.bury(refused)
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
                    sending.error = self._service.away(failure)
                elif each.is_dead:
                    logger.warning(
                        "queue %s: a dead letter stays in the database: %s", self._queue, failure.reason
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
                logger.warning("queue %s: SQS refuses a result: %s", self._queue, reason)
            else:
                sending.error = self._service.away(failure)

    def _send_all(self, batch: Sequence[Unsent]) -> list[tuple[Unsent, Failure | None]]:
        """All results or all dead letters, each with why it was not taken."""
        is_dead = batch[0].is_dead
        url, name = (self._dead_url, self._dead) if is_dead else (self.url, self.name)
        entries: list[dict[str, Any]] = []
        for each in batch:
            entry = entry_of(each.body.decode(errors="replace"), each.token if is_fifo(name) else "")
            if not is_dead:  # a dead letter may be as long as SQS takes already
                entry["MessageAttributes"] = {"token": {"DataType": "String", "StringValue": each.token}}
            entries.append(entry)
        failed = self._service.batch("send_message_batch", url, entries)
        return [(each, failed.get(index)) for index, each in enumerate(batch)]


def beside(name: str, kind: str) -> str:
    """The name of a queue that belongs to another one: `x.fifo` has `x-results.fifo`."""
    return f"{name.removesuffix('.fifo')}-{kind}.fifo" if is_fifo(name) else f"{name}-{kind}"


def _size(token: str, body: bytes) -> int:
    return len(body) + len("token" + "String" + token)


def _unsent_size(unsent: Unsent) -> int:
    return len(unsent.body) if unsent.is_dead else _size(unsent.token, unsent.body)


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
