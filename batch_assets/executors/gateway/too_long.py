"""Texts that are longer than the model takes: what servers say of them, and where the text is to be cut.

A server's tokenizer is not to be had, and counts only what it is sent. So the longest beginning that it takes is looked
for by asking: the answers tell how many tokens each try had.
"""

import re
from typing import NamedTuple

from batch_assets.gateway.verdicts import Judgement

TRIES = 12
"""So often a text is cut anew; from any length to the last token it takes about five."""

# vLLM, SGLang, OpenAI, TEI, llama.cpp, LiteLLM, in this order, as far as they name numbers.
_WORDS = re.compile(
    r"context.{0,12}length|context_length_exceeded|too long|longer than|too many tokens|exceeds? the (max|limit)"
    r"|must have less than|maximum (input|sequence|number of tokens)|token limit",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"(?:context length|less than|maximum[^.\d]{0,40}?|limit(?: of| is)?)\D{0,12}?(\d[\d,]*)", re.IGNORECASE
)
_COUNT = re.compile(
    r"(?:requested|resulted in|given:?|got:?|have|has|with|your (?:input|prompt|request) (?:has|contains|is))\D{0,24}"
    r"(\d[\d,]*)",
    re.IGNORECASE,
)


class TooMany(NamedTuple):
    """What a server says of a text that it does not take: its own tokens, and the most; None where it says none."""

    limit: int | None
    tokens: int | None


def too_many_tokens(judgement: Judgement) -> TooMany | None:
    """What is told of the tokens, if it is for their number that the call was refused."""
    if judgement.status not in (400, 413, 422):
        return None
    if not _WORDS.search(f"{judgement.code} {judgement.message}"):
        return None
    limit, count = (_number(pattern, judgement.message) for pattern in (_LIMIT, _COUNT))
    if limit is not None and count is not None and count <= limit:
        count = None
    return TooMany(limit, count)


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return int(found[1].replace(",", "")) if found else None


class Cut:
    """Looks for the longest beginning of a text that a model takes.

    Call `next` for what to send, and then `taken` or `refused`; `next` gives None once nothing longer is worth a call.
    """

    def __init__(self, text: str, told: TooMany) -> None:
        self._text = text
        self._limit = told.limit
        self._taken, self._taken_tokens = 0, 0
        self._refused, self._refused_tokens = len(text), told.tokens
        self._length = 0
        self._tries = 0

    def next(self) -> str | None:
        """The beginning to be sent next; None: the longest that was taken is long enough."""
        full = self._limit is not None and self._taken_tokens >= self._limit
        if full or self._refused - self._taken <= 1 or self._tries == TRIES:
            return None
        self._tries += 1
        self._length = self._guess()
        return self._text[: self._length]

    def taken(self, tokens: int) -> None:
        """The server has taken it, as so many tokens (0: not told)."""
        self._taken, self._taken_tokens = self._length, tokens

    def refused(self, told: TooMany) -> None:
        """It was too long still."""
        self._refused, self._refused_tokens = self._length, told.tokens
        self._limit = self._limit or told.limit

    def _guess(self) -> int:
        """Between what was taken and what was refused: where the tokens should reach the limit, else in the middle."""
        between = (self._taken + self._refused) // 2
        limit, most = self._limit, self._refused_tokens
        if limit is not None and most is not None and most > self._taken_tokens:
            share = (limit - self._taken_tokens) / (most - self._taken_tokens)
            between = self._taken + int(share * (self._refused - self._taken))
        # Each try has to come closer, also where the guess is one of the two ends.
        return min(max(between, self._taken + 1), self._refused - 1)
