"""A queue on Amazon SQS, with the database of requests for what SQS has no place for.

A message ends in this order:

1. Its token and its result are written to the database, in one transaction; of two ends of a message the
   first counts. From here on the result is not lost, and the message, delivered again, is not asked again.
2. The result is sent to the queue of results, and then taken out of the database.
3. The message is deleted from its queue.

After a kill between 1 and 2, the result is sent by whichever process uses the queue with this database next,
`outbox.HELD_SECONDS` after the kill at the earliest. A result comes twice where a process is killed after
SQS has taken it and before the database knows, where a process stands still for so long while it sends, or
where SQS's answer is lost; a FIFO queue drops the second one, if it comes within five minutes. After a kill
before 1, the message is asked again. All of this needs the database to be there again: workers of one queue
share one, and whoever takes another one may see calls and results twice.

SQS counts deliveries, not tries: a message that was given back without a call has one more attempt, too. It
holds a message for twelve hours at most, and orders by no deadline.
"""

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from batch_assets.dispatch.messages import read_if_valid, token_of
from batch_assets.dispatch.queues.base import (
    Claimed,
    Depth,
    Ending,
    Finished,
    Known,
    Named,
    QueueAway,
    Returned,
)
from batch_assets.dispatch.queues.outbox import Outbox
from batch_assets.dispatch.queues.remembered import Remembered
from batch_assets.dispatch.queues.sqs_results import SqsResults, beside
from batch_assets.dispatch.queues.sqs_service import (
    CALLS_AT_ONCE,
    MOST_ENTRIES,
    SqsService,
    batched,
    entry_of,
    is_fifo,
    whole_seconds,
)
from batch_assets.errors import BatchAssetsError, ConfigurationError
from batch_assets.requests.database import DatabaseAway, RequestsDatabase

Made = TypeVar("Made")


class SqsQueue:
    """Messages in the queue `name` of a region, their results in `results`, dead letters in `{name}-dead`."""

    is_ordered = False

    def __init__(
        self, region: str, name: str, database: RequestsDatabase, results: str | None = None
    ) -> None:
        self.name = name
        self._region = region
        self._url = ""
        self._service = SqsService(region, name)
        self._database = database
        key = f"sqs:{region}/{name}"
        self._remembered = Remembered(database, key)
        self._results = SqsResults(
            self._service, name, results or beside(name, "results"), Outbox(database, key)
        )
        # One thread: a result that is being sent is not sent beside that.
        self._ends = ThreadPoolExecutor(1, thread_name_prefix=f"sqs-ends-{name}")

    @property
    def clock_ahead(self) -> float:
        return self._service.clock_ahead

    async def open(self) -> None:
        await self._do(self._open, self._ends)

    def _open(self) -> None:
        self._database.prepare()
        self._service.connect()
        url = self._service.url_of(self.name)
        if url is None:
            raise self._missing()
        self._url = url
        self._results.open()
        self._results.send_unsent()

    def _missing(self) -> ConfigurationError:
        return ConfigurationError(
            f"queue {self.name}: there is no such queue on SQS in the region {self._region}; create it, or name "
            "another queue or region"
        )

    async def close(self) -> None:
        self._ends.submit(self._database.dispose)
        for threads in (self._ends, self._service.calls):
            threads.shutdown(wait=False)

    async def put(self, bodies: Sequence[bytes]) -> None:
        """Add messages, in this order. Raises BatchAssetsError for one that SQS never takes."""
        if not bodies:
            return
        read = [read_if_valid(body) for body in bodies]
        ids = {message.id for message in read if message is not None}
        await self._do(lambda: self._remembered.ask_anew(ids), self._service.calls)
        entries: list[dict[str, Any]] = []
        for number, (body, message) in enumerate(zip(bodies, read, strict=True)):
            token = token_of("", "", body) if message is None else message.token
            try:
                entries.append(entry_of(body.decode(), token if is_fifo(self.name) else ""))
            except UnicodeDecodeError as error:
                raise BatchAssetsError(
                    f"queue {self.name}: message {number}: {error}; SQS takes text only"
                ) from None

        def send() -> None:
            for batch in batched(entries, lambda entry: len(entry["MessageBody"].encode())):
                for index, failure in self._service.batch("send_message_batch", self._url, batch).items():
                    if failure.for_good:
                        start = batch[index]["MessageBody"][:80]
                        raise BatchAssetsError(
                            f"queue {self.name}: message {start!r}: SQS refuses it: {failure.reason}"
                        )
                    raise self._service.away(failure)

        await self._do(send, self._service.calls)

    async def claim(self, most: int, lease_seconds: float, *, expired_only: bool = False) -> list[Claimed]:
        if self._results.is_due():
            # What a process that died has left is sent though no message may come.
            await self._do(self._results.send_unsent, self._ends)
        if expired_only:
            return []
        return [_claimed(message) for message in await self._receive(self._url, most, lease_seconds)]

    async def _receive(self, url: str, most: int, seconds: float, wait: int = 0) -> list[dict[str, Any]]:
        """Up to `most` messages. Every call is paid for: one goes ahead, more follow while messages come."""
        found: dict[str, dict[str, Any]] = {}
        at_once = 1
        while (left := most - len(found)) > 0:
            counts = [min(MOST_ENTRIES, left - start) for start in range(0, left, MOST_ENTRIES)][:at_once]
            receive = functools.partial(self._service.receive, url)
            answers = await asyncio.gather(
                *(
                    self._do(functools.partial(receive, count, seconds, wait), self._service.calls)
                    for count in counts
                ),
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

    async def extend(self, messages: Sequence[Claimed], lease_seconds: float) -> None:
        await self._hold([(message.claim, lease_seconds) for message in messages])

    async def give_back(self, returned: Sequence[Returned]) -> None:
        """Have the messages delivered again. Who counts tries is SQS: `attempts` is not kept."""
        await self._hold([(each.message.claim, each.pause) for each in returned])

    async def _hold(self, claims: Sequence[tuple[str, float]]) -> None:
        entries = [
            {"ReceiptHandle": claim, "VisibilityTimeout": whole_seconds(seconds)} for claim, seconds in claims
        ]
        change = functools.partial(self._service.batch, "change_message_visibility_batch", self._url)
        # An entry fails where the claim has passed to somebody else; else its lease ends by itself.
        await asyncio.gather(
            *(self._do(functools.partial(change, batch), self._service.calls) for batch in batched(entries))
        )

    async def look_up(self, names: Sequence[Named]) -> Known:
        return await self._do(lambda: self._remembered.look_up(names), self._service.calls)

    async def cancel(self, message_id: str) -> None:
        await self._do(lambda: self._remembered.cancel(message_id), self._service.calls)

    async def finish(self, ended: Sequence[Finished]) -> None:
        def end() -> None:
            self._results.store(ended)
            for failure in self._service.delete(self._url, [each.message.claim for each in ended]).values():
                # Where the claim has passed to somebody else, they find the token and delete the message.
                if not failure.for_good:
                    raise self._service.away(failure)

        if ended:
            await self._do(end, self._ends)

    async def take_results(self, most: int) -> list[bytes]:
        """Take results out; about the oldest first, as far as SQS knows."""
        # With a wait SQS asks all its servers: no answer means that there is nothing.
        found = await self._receive(self._results.url, most, 30.0, wait=1)
        claims = [message["ReceiptHandle"] for message in found]
        failed = await self._do(lambda: self._service.delete(self._results.url, claims), self._ends)
        if found and len(failed) == len(found):
            raise self._service.away(failed[claims[0]])
        # What is not deleted comes again.
        return [message["Body"].encode() for message in found if message["ReceiptHandle"] not in failed]

    async def depth(self) -> Depth:
        def count(url: str, name: str) -> tuple[int, int]:
            found = url or self._service.url_of(name)
            if found is None and name == self.name:
                raise self._missing()
            return self._service.count(found) if found else (0, 0)

        await self._do(self._service.connect, self._service.calls)
        (waiting, held), (results, _) = await asyncio.gather(
            *(
                self._do(functools.partial(count, url, name), self._service.calls)
                for url, name in ((self._url, self.name), (self._results.url, self._results.name))
            )
        )
        return Depth(waiting, held, results)

    async def endings(self) -> Mapping[Ending, int]:
        def count() -> Mapping[Ending, int]:
            self._database.prepare()
            return self._remembered.endings()

        return await self._do(count, self._service.calls)

    async def _do(self, step: Callable[[], Made], threads: ThreadPoolExecutor) -> Made:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, step)
        except DatabaseAway as error:
            raise QueueAway(str(error)) from error


def _claimed(message: dict[str, Any]) -> Claimed:
    known = message.get("Attributes", {})
    sent = known.get("SentTimestamp")
    return Claimed(
        message["Body"].encode(errors="replace"),
        message["ReceiptHandle"],
        max(0, int(known.get("ApproximateReceiveCount", 1)) - 1),
        None if sent is None else int(sent) / 1000,
    )
