"""What the model server of the tests can do, and what goes wrong: its limits, its latency, its faults.

A scenario is a JSON file. Which calls a fault hits is drawn from the seed and the call's number, so that
a scenario does the same at every run with calls in the same order. How faults are carried out
is in `model_server.py` and `damage.py`.
"""

from email.utils import formatdate
from time import time
from typing import Annotated, Literal

from pydantic import Field

from batch_assets.settings.base import Settings

Kind = Literal[
    # In place of computing:
    "refuse",  # with `refusal`
    "stall",  # never answers
    # Computed and paid for, but not delivered:
    "drop",  # hangs up before the answer
    "cut",  # hangs up in the middle of the body
    "cut_with_length",  # half of the body, with a Content-Length that fits the half
    "html",  # status 200 and somebody's HTML page
    "error_inside",  # status 200 and {"error": …}
    "crash",  # the process kills itself
    # Delivered, but damaged; those of one vector hit the inputs with `text`, or the call's first:
    "missing_vector",
    "null_vector",
    "zero_vector",
    "nan_vector",
    "wrong_width",
    "shuffled",  # each with its right index
    "duplicate_index",
    "wrong_index",
    "finish_length",  # an answer cut at half, finish_reason: length
    "null_answer",
    "not_json",  # plain text where a JSON schema was asked for
    "no_usage",
]


class Refusal(Settings):
    """An error in OpenAI's shape. `type`, `code` and `message` have defaults by status."""

    status: int = 429
    type: str | None = None
    code: str | None = None
    message: str | None = None
    retry_after: float | None = Field(default=None, description="Seconds; None: no such header.")
    retry_after_as_date: bool = False
    headers: dict[str, str] = Field(default={})

    def all_headers(self) -> dict[str, str]:
        if self.retry_after is None:
            return self.headers
        if self.retry_after_as_date:
            return {**self.headers, "Retry-After": formatdate(time() + self.retry_after, usegmt=True)}
        return {**self.headers, "Retry-After": f"{self.retry_after:g}"}


class Fault(Settings):
    """One thing that goes wrong, for each call that all of its conditions hold for."""

    kind: Kind
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    times: int | None = Field(default=None, description="At most so many calls of each process.")
    calls: tuple[int, int] | None = Field(
        default=None, description="First and last call number; 1 is the first, restarts count on."
    )
    text: str | None = Field(default=None, description="Only calls with an input that contains it.")
    refusal: Refusal = Refusal()


class Latency(Settings):
    """How long a call takes, and what becomes of calls above the server's slots.

    `slow` takes seconds × (in flight / slots) ^ slowdown: with 1 the throughput stays what it is
    at all slots, above 1 it falls.
    """

    slots: int | None = Field(default=None, ge=1, description="None: no limit.")
    seconds: float = 0.0
    seconds_per_input: float = 0.0
    above: Literal["queue", "slow", "refuse", "stall"] = "queue"
    slowdown: float = 1.0
    refusal: Refusal = Refusal()


class Scenario(Settings):
    """The whole server."""

    seed: int = 0
    model: str = "test-model"
    root: str = "tests/test-model"
    dimensions: int = 384
    context_tokens: int | None = Field(default=None, description="Most tokens (words) of one input.")
    api_key: str | None = Field(default=None, description="What callers must send as their bearer token.")
    noted_headers: list[str] = Field(default=[], description="Request headers to write into the books.")
    latency: Latency = Latency()
    faults: list[Fault] = Field(default=[])
