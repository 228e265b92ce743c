"""What every gate does. It stands before a queue or a pool; where there are several, all must let a message pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from batch_assets.dispatch.messages import Message


@dataclass(frozen=True, slots=True)
class Held:
    """A message that may not pass: back into the queue for `seconds`."""

    seconds: float
    reason: str


class Gate(Protocol):
    """Asked before messages are taken, and for each message before it is sent."""

    name: str

    def room(self) -> float:
        """How many more messages may be taken now; infinite where that is not this gate's matter."""
        ...

    def admit(self, message: Message) -> Held | None:
        """Let the message pass, or say why not. What has passed is released."""
        ...

    def release(self, message: Message) -> None: ...

    async def watch(self) -> None:
        """Read what the gate goes by; runs as long as the worker."""
        ...


def room_of(gates: Sequence[Gate]) -> float:
    """How many more messages all of them have room for."""
    return min((gate.room() for gate in gates), default=math.inf)


def admit_all(gates: Sequence[Gate], message: Message) -> tuple[Gate, Held] | None:
    """Let a message through all gates, or say which one holds it back; then it occupies no other."""
    for number, gate in enumerate(gates):
        held = gate.admit(message)
        if held is not None:
            for passed in gates[:number]:
                passed.release(message)
            return gate, held
    return None
