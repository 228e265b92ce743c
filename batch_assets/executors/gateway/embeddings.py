"""Texts as calls for embeddings: several a call, halved where the server refuses one of them, cut where it is too long.

What an answer holds is read in `vectors.py`; how a call is delivered is in `gateway/delivery.py`; how shards are
streamed through, in `streaming.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.outcomes import Failure, Outcomes
from batch_assets.embeddings.reason_codes import TOO_LONG
from batch_assets.executors.gateway.failures import failure_code
from batch_assets.executors.gateway.requests import Requests, token_bound
from batch_assets.executors.gateway.too_long import Cut, TooMany, too_many_tokens
from batch_assets.executors.gateway.vectors import Unsound, Vector, VectorReader, Vectors
from batch_assets.gateway.all_of import all_of
from batch_assets.gateway.client import Answer
from batch_assets.gateway.delivery import Call, Delivered, NotDelivered, Server
from batch_assets.sources.base import Records

CALLS_PER_UNIT = 8
TRIES_OF_MANY = 2
"""So often a call of several inputs that the server breaks at is tried before it is halved: one may be why."""


@dataclass(slots=True)
class Embedded:
    """A record's vector, with the tokens that it took, or what is wrong with it, after so many attempts."""

    attempts: int
    vector: Vector | None = None
    tokens: int = 0
    code: str = ""
    message: str = ""


class EmbeddingCalls:
    """Calls for the embeddings of one pipeline's texts."""

    def __init__(self, requests: Requests, max_attempts: int) -> None:
        self.requests = requests
        self.records_per_unit = CALLS_PER_UNIT * requests.inputs_per_call
        model = requests.settings.model
        self._reader = VectorReader(model.dimensions, model.normalize)
        self._max_attempts = max_attempts

    async def outcomes(self, server: Server, records: Records, facts: JobFacts) -> Outcomes:
        """The outcome of each record. Raises ServerRefuses and ServerAway."""
        size = self.requests.inputs_per_call
        texts = [self.requests.prefix + text for text in records.texts]
        parts = [texts[first : first + size] for first in range(0, len(texts), size)]
        found = list(chain.from_iterable(await all_of(self.embed(server, part, facts) for part in parts)))
        facts.dimensions = self._reader.width or 0
        vectors = [each.vector for each in found if each.vector is not None]
        return Outcomes(
            records,
            np.array([row for row, each in enumerate(found) if each.vector is not None], dtype=np.int64),
            np.stack(vectors) if vectors else np.empty((0, facts.dimensions), dtype=np.float32),
            np.array([each.tokens for each in found if each.vector is not None], dtype=np.int32),
            [
                Failure(row, each.code, each.message, each.attempts)
                for row, each in enumerate(found)
                if each.vector is None
            ],
        )

    async def embed(self, server: Server, texts: Sequence[str], facts: JobFacts) -> list[Embedded]:
        """What becomes of these texts by one call; what is wrong with one of them costs only that one."""
        tries = self._max_attempts if len(texts) == 1 else min(TRIES_OF_MANY, self._max_attempts)
        try:
            delivered = await self._call(server, texts, tries, facts)
        except NotDelivered as error:
            if self.requests.base64 and error.final and "encoding_format" in error.judgement.message:
                self.requests.base64 = False
                return await self.embed(server, texts, facts)
            if len(texts) > 1:
                middle = len(texts) // 2
                halves = (texts[:middle], texts[middle:])
                return list(
                    chain.from_iterable(await all_of(self.embed(server, half, facts) for half in halves))
                )
            return [await self._failed(server, texts[0], error, facts)]
        vectors, shares = delivered.content.by_input, _shares(delivered.content.tokens, texts)
        # Of several texts only: an unsound vector of one alone is tried again where it is read.
        again = [place for place, vector in enumerate(vectors) if isinstance(vector, Unsound)]
        retried = await all_of(self.embed(server, [texts[place]], facts) for place in again)
        found = [
            Embedded(delivered.attempts, None if isinstance(vector, Unsound) else vector, share)
            for vector, share in zip(vectors, shares, strict=True)
        ]
        for place, [each] in zip(again, retried, strict=True):
            each.attempts += delivered.attempts
            found[place] = each
        return found

    async def _call(
        self, server: Server, texts: Sequence[str], tries: int, facts: JobFacts
    ) -> Delivered[Vectors]:
        """One call for these texts, until it is delivered, and accounted for. Raises NotDelivered."""
        bound = sum(map(token_bound, texts))
        call = Call(self.requests.path, self.requests.embeddings(texts), len(texts), bound)

        def read(answer: Answer) -> Vectors:
            return self._reader.read(answer, len(texts))

        delivered = await server.deliver(call, read, tries)
        tokens = delivered.content.tokens
        server.refund(bound - tokens)
        facts.add(input_tokens=tokens, cost_usd=self.requests.cost(tokens, 0))
        return delivered

    async def _failed(self, server: Server, text: str, error: NotDelivered, facts: JobFacts) -> Embedded:
        """The only text of a call that has come to nothing: cut where it is too long, else given up."""
        judgement = error.judgement
        told = too_many_tokens(judgement) if error.final else None
        if told is None:
            server.record_failed(judgement)
            return Embedded(error.attempts, code=failure_code(judgement), message=judgement.text)
        if not self.requests.truncate:
            return Embedded(error.attempts, code=TOO_LONG, message=judgement.message)
        return await self._cut(server, text, told, error, facts)

    async def _cut(
        self, server: Server, text: str, told: TooMany, error: NotDelivered, facts: JobFacts
    ) -> Embedded:
        """The vector of as much of the text as the model takes, which is found out by asking."""
        cut, attempts = Cut(text, told), error.attempts
        longest = Embedded(attempts, code=TOO_LONG, message=error.judgement.message)
        while (part := cut.next()) is not None:
            try:
                delivered = await self._call(server, [part], self._max_attempts, facts)
            except NotDelivered as again:
                attempts += again.attempts
                refused = too_many_tokens(again.judgement)
                if refused is None:
                    server.record_failed(again.judgement)
                    return Embedded(
                        attempts, code=failure_code(again.judgement), message=again.judgement.text
                    )
                cut.refused(refused)
                continue
            attempts += delivered.attempts
            [vector], tokens = delivered.content.by_input, delivered.content.tokens
            cut.taken(tokens)
            if not isinstance(vector, Unsound):
                longest = Embedded(attempts, vector, tokens)
        return longest


def _shares(tokens: int, texts: Sequence[str]) -> list[int]:
    """The tokens of a call, told as one sum, by the lengths of its texts; the shares add up to the sum."""
    lengths = np.cumsum([max(len(text), 1) for text in texts], dtype=np.float64)
    ends = np.rint(lengths / lengths[-1] * tokens).astype(np.int64)
    return np.diff(ends, prepend=0).tolist()
