"""A call until it is delivered: room at the server, one try after the other, and when to give up.

The server's room is `window.py`, its rates are `rates.py`. What is sent and made of the answer belongs to the caller.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from batch_assets.errors import ModelError
from batch_assets.gateway.client import Answer, Client, NoAnswer, NotReached, TimedOut
from batch_assets.gateway.rates import Governor
from batch_assets.gateway.verdicts import Judgement, Verdict, judge
from batch_assets.gateway.window import Window
from batch_assets.plain_text import plain_logger
from batch_assets.retry_policy import (
    AWAY_SECONDS,
    CALL_FIRST_PAUSE_SECONDS,
    CALL_LONGEST_PAUSE_SECONDS,
    FIRST_ANSWER_SECONDS,
    RECORDS_FAILED_IN_A_ROW,
    REFUSING_SECONDS,
    SILENT_SECONDS,
    SPEAK_SECONDS,
)

logger = plain_logger(__name__)
Read = TypeVar("Read")
_OF_THE_ACCOUNT = frozenset({401, 402})
"""A key that is refused, or money that is used up: what any other call would be answered, too."""
_OF_THE_ENDPOINT = frozenset({301, 302, 307, 308, 403, 404, 405})
"""The same of a server that has not delivered anything yet: a wrong address, path or model."""
_NO_MONEY = "insufficient_quota"
"""OpenAI's code of a 429 that no waiting ends."""


class BadAnswer(Exception):
    """An answer with status 200 that is not what was asked for; another try may be."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotDelivered(Exception):
    """The call has come to nothing. `final`: it would be refused again; else its tries are spent."""

    def __init__(self, judgement: Judgement, attempts: int, *, final: bool) -> None:
        super().__init__(judgement.text)
        self.judgement = judgement
        self.attempts = attempts
        self.final = final


class ServerRefuses(ModelError):
    """The server answers every call alike, and not with what was asked for."""


class ServerAway(ModelError):
    """The server does not answer, and has been waited for."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is sent. `records` is how much work it is, `tokens` the most that it can take, for the rates."""

    path: str
    body: bytes
    records: int = 1
    tokens: int = 0
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Delivered(Generic[Read]):
    """What was read from the answer, after so many attempts."""

    content: Read
    attempts: int


class Server:
    """One model server, with all calls to it from this process; used in one event loop.

    `calls` counts those that went out, `delivered` those that were answered with what they had asked for.
    """

    def __init__(
        self,
        client: Client,
        window: Window,
        governor: Governor | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client = client
        self.window = window
        self.calls = self.delivered = 0
        self._governor = governor
        self._clock = clock
        self._failed_in_a_row = 0
        self._trouble_since: float | None = None
        self._said_at = float("-inf")

    async def deliver(self, call: Call, read: Callable[[Answer], Read], max_attempts: int) -> Delivered[Read]:
        """Send the call until `read` takes the answer. Tries that the server had no room for do not count.

        `read` raises BadAnswer for what it cannot use. Raises NotDelivered for what concerns this call,
        ServerRefuses and ServerAway for what concerns all.
        """
        attempts = pauses = 0
        while True:
            failed = await self._try(call, read)
            if isinstance(failed, Delivered):
                return Delivered(failed.content, attempts + 1)
            if failed.verdict is Verdict.WRONG:
                raise NotDelivered(failed, attempts + 1, final=True)
            if failed.verdict is Verdict.BROKEN:
                attempts += 1
                if attempts >= max_attempts:
                    raise NotDelivered(failed, attempts, final=False)
            await self._pause(pauses)
            pauses += 1

    async def ask(self, path: str) -> Answer:
        """What the server has at a path, by GET; waited for while it is away. Raises ServerAway."""
        pauses = 0
        while True:
            try:
                answer = await self.client.get(path)
                judgement = judge(answer)
                if judgement.verdict not in (Verdict.REFUSED, Verdict.BROKEN) or judgement.status == 501:
                    return answer
                failed = f"{self.client.base_url}{path}: {judgement.text}"
            except NoAnswer as error:
                failed = str(error)
            self._trouble(failed, AWAY_SECONDS if self.delivered else FIRST_ANSWER_SECONDS)
            await self._pause(pauses)
            pauses += 1

    async def _try(self, call: Call, read: Callable[[Answer], Read]) -> "Delivered[Read] | Judgement":
        if self._governor is not None:
            await self._governor.take(call.tokens)
        flight = await self.window.enter()
        self.calls += 1
        status = 0
        try:
            answer = await self.client.post(call.path, call.body, call.headers)
            judgement, status = judge(answer), answer.status
            if judgement.verdict is Verdict.DONE:
                content = read(answer)
                self.window.delivered(flight, call.records)
                self._went_well()
                return Delivered(content, 1)
        except NotReached as error:
            self.window.ended(flight)
            self._trouble(str(error), AWAY_SECONDS if self.delivered else FIRST_ANSWER_SECONDS)
            self.refund(call.tokens)
            return Judgement(Verdict.REFUSED, 0, "not_reached", str(error))
        except TimedOut as error:
            self.window.refused(flight)
            return Judgement(Verdict.BROKEN, 0, "timed_out", str(error))
        except NoAnswer as error:
            self.window.ended(flight)
            return Judgement(Verdict.BROKEN, 0, "no_answer", str(error))
        except BadAnswer as error:
            self.window.ended(flight)
            return Judgement(Verdict.BROKEN, status, error.code, str(error))
        except BaseException:
            self.window.ended(flight)
            raise
        if judgement.verdict is Verdict.REFUSED and judgement.code != _NO_MONEY:
            self.window.refused(flight, judgement.pause)
            self.refund(call.tokens)
            self._trouble(f"{self.client.base_url} has no room: {judgement.text}", REFUSING_SECONDS)
            return judgement
        self.window.ended(flight)
        of_all = _OF_THE_ACCOUNT if self.delivered else _OF_THE_ACCOUNT | _OF_THE_ENDPOINT
        if judgement.status in of_all or judgement.code == _NO_MONEY:
            raise ServerRefuses(
                f"{self.client.base_url}{call.path} answers {judgement.text}; look at executor.base_url and path, "
                "model.id, and the key in executor.api_key_env"
            )
        return judgement

    def refund(self, tokens: int) -> None:
        """So many tokens of a call's bound were not used (negative: more were)."""
        if self._governor is not None and tokens:
            self._governor.refund(tokens)

    @staticmethod
    async def _pause(pauses: int) -> None:
        """Of random length, growing with the pauses before it: many calls are not to come back all at once."""
        longest = min(CALL_FIRST_PAUSE_SECONDS * 2 ** min(pauses, 30), CALL_LONGEST_PAUSE_SECONDS)
        await asyncio.sleep(longest * random.uniform(0.5, 1.0))

    def _went_well(self) -> None:
        self.delivered += 1
        self._failed_in_a_row = 0
        self._trouble_since = None

    def record_failed(self, failed: Judgement) -> None:
        """A record is given up. Raises ServerRefuses after so many in a row that none of them can be the reason."""
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= RECORDS_FAILED_IN_A_ROW:
            raise ServerRefuses(
                f"{self.client.base_url} has failed {self._failed_in_a_row} records one after the other, the last with "
                f"{failed.text}; look at the server, and at what is sent to it (model, executor.body)"
            )

    def _trouble(self, text: str, patience: float) -> None:
        """The server cannot be used now. Raises ServerAway where it has been so for longer than `patience`."""
        now = self._clock()
        if self._trouble_since is None:
            self._trouble_since = now
        waited = now - self._trouble_since
        if waited > patience:
            raise ServerAway(
                f"{text}; waited {waited:,.0f} s for it. Run again once it answers: nothing is lost"
            )
        if waited >= SILENT_SECONDS and now - self._said_at >= SPEAK_SECONDS:
            self._said_at = now
            logger.warning("%s; trying again for %.0f s more", text, patience - waited)
