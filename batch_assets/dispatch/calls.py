"""One call of a message: to the worker's server, once, and what its end means for the message.

When the message is tried again, and how its end is stored, is `pool.py`'s matter.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from batch_assets.dispatch.admission import Admission
from batch_assets.dispatch.messages import Message
from batch_assets.errors import ConfigurationError
from batch_assets.gateway.client import Answer, Client, NoAnswer, NotReached, TimedOut
from batch_assets.gateway.verdicts import Verdict, judge
from batch_assets.gateway.window import Window


class End(Enum):
    """What a call's end means."""

    ANSWERED = auto()
    REFUSED = auto()  # the server has no room now: the message waits
    BROKEN = auto()  # another try may go better
    NOT_REACHED = auto()  # nobody has heard of the message
    FAILED = auto()  # another try would end alike
    INVALID = auto()  # it cannot be sent


@dataclass(frozen=True, slots=True)
class CallEnd:
    """`status` is None where no answer came; `pause` is what the server asked for, in seconds."""

    end: End
    status: int | None = None
    body: bytes = b""
    reason: str = ""
    pause: float | None = None


class Caller:
    """Calls one server, as many at a time as the window lets out. No message changes `headers`."""

    def __init__(self, client: Client, window: Window, headers: Mapping[str, str]) -> None:
        self.window = window
        self._admission = Admission(window)
        self._client = client
        self._headers = dict(headers)
        self._taken = frozenset(name.lower() for name in headers)

    async def call(self, message: Message, sent: Callable[[], object]) -> CallEnd:
        """Wait for room, tell `sent`, send the message, judge the answer."""
        flight = await self._admission.enter()
        try:
            sent()
            headers = {
                name: text for name, text in message.headers.items() if name.lower() not in self._taken
            }
            answer = await self._client.post(message.path, message.payload, headers | self._headers)
            end = _judged(answer)
            if end.end is End.ANSWERED:
                self._admission.delivered(flight)
            elif end.end is End.REFUSED:
                self._admission.refused(flight, end.pause)
            return end
        except NotReached as error:
            return CallEnd(End.NOT_REACHED, reason=str(error))
        except TimedOut as error:
            self.window.refused(flight)
            return CallEnd(End.BROKEN, reason=str(error))
        except NoAnswer as error:
            return CallEnd(End.BROKEN, reason=str(error))
        except ConfigurationError as error:
            return CallEnd(End.INVALID, reason=str(error))
        finally:
            self._admission.ended(flight)


def _judged(answer: Answer) -> CallEnd:
    judgement = judge(answer)
    if judgement.verdict is Verdict.DONE:
        if answer.body.lstrip()[:1] == b"{" and answer.body.rstrip()[-1:] == b"}":
            return CallEnd(End.ANSWERED, 200, answer.body)
        return CallEnd(End.BROKEN, 200, answer.body, "status 200, but no JSON object")
    end = {Verdict.REFUSED: End.REFUSED, Verdict.BROKEN: End.BROKEN}.get(judgement.verdict, End.FAILED)
    return CallEnd(end, judgement.status, answer.body, judgement.text, judgement.pause)
