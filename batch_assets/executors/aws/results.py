"""What result files of all services have in common: lines, and vectors that go into rows in blocks.

What a line means is each executor's business.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.validation import vector_norms

LONGEST_LINE = 64 * 2**20
# How far from 1 a length may be before a vector is scaled: float32 noise of a model that
# normalizes stays as it came, and what is farther off would come near the writer's 1e-3.
_LENGTH_NOISE = 1e-4


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their ends, blank ones left out; one beyond all reason comes cut, and so unreadable."""
    rest = b""
    skipping = False
    for chunk in chunks:
        start = 0
        # `find` looks for many bytes at once; `split` and files' own iteration do not.
        while (end := chunk.find(b"\n", start)) >= 0:
            line = chunk[start:end] if start else rest + chunk[:end] if not skipping else rest
            start = end + 1
            skipping = False
            if line and not line.isspace():
                yield line
        rest = chunk[start:] if start else rest if skipping else rest + chunk
        if len(rest) > LONGEST_LINE:
            skipping, rest = True, rest[:100]
    if rest and not rest.isspace():
        yield rest


class LineParser:
    """Parses lines of JSON; what it hands out is gone before the next is parsed."""

    def __init__(self) -> None:
        import simdjson  # hands arrays of numbers over as they are: faster than making Python's

        self._parser: Any = simdjson.Parser()

    def parse(self, content: bytes) -> Any:
        """What simdjson makes of it. Raises ValueError, RuntimeError."""
        return self._parser.parse(content)

    def parse_object(self, line: bytes) -> Any:
        """A JSON object: a dict, or simdjson's view of one. None: there is none."""
        try:
            record = self._parser.parse(line)
        except (ValueError, RuntimeError):
            # Python's own parser takes what JSON has not: NaN, numbers of any size, lone surrogates.
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                return None
        return record if hasattr(record, "keys") else None


@dataclass
class Tally:
    """Lines of results: each is of exactly one of the kinds `embedded` to `foreign`.

    `embedded` are answers, too; `again` are records whose answer is of no use, or that a service asks
    to try again. `doubled` told nothing new of their record, `unreadable` are no such line at all,
    `foreign` are of no record of the shard. Tokens are those of answers taken.
    """

    lines: int = 0
    embedded: int = 0
    failed: int = 0
    again: int = 0
    unreadable: int = 0
    doubled: int = 0
    foreign: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def note_again(self, rows: JobRows, ordinal: int, code: str, message: str) -> None:
        """The record is to be tried again, unless it is settled."""
        new = rows.again(ordinal, code, message)
        self.again += new
        self.doubled += not new

    def note_response(
        self, rows: JobRows, ordinal: int, text: str, input_tokens: int, output_tokens: int
    ) -> None:
        """The record has its answer, unless it had one."""
        if not rows.respond(ordinal, text, input_tokens, output_tokens):
            self.doubled += 1
            return
        self.embedded += 1
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens


@dataclass
class Taken:
    """What became of a block of vectors: `doubled` were known before, `bad` are (ordinal, why) to be tried again.

    `tokens` are those of the vectors taken.
    """

    embedded: int
    doubled: int
    tokens: int
    bad: list[tuple[int, str]] = field(default_factory=list)


def take_vectors(
    rows: JobRows,
    ordinals: Sequence[int],
    vectors: npt.NDArray[Any],
    tokens: Sequence[int],
    *,
    normalize: bool,
) -> Taken:
    """Put `vectors` (n, dimensions) of these records into `rows`, as float32, scaled to length 1 where asked."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and goes again
        values = vectors.astype(np.float32)
    lengths = vector_norms(values)
    bad = ~np.isfinite(lengths)
    if normalize:
        _normalize(values, lengths, bad)
    good = np.flatnonzero(~bad)
    places = np.array(ordinals, dtype=np.int64)
    counts = np.array(tokens, dtype=np.int32)
    taken = rows.embed_many(places[good], values[good] if bad.any() else values, counts[good])
    result = Taken(len(taken), len(good) - len(taken), int(counts[good][taken].sum(dtype=np.int64)))
    for row in np.flatnonzero(bad).tolist():
        what = "has no direction" if np.isfinite(lengths[row]) else "is not finite"
        result.bad.append((ordinals[row], f"the embedding {what}"))
    return result


def _normalize(
    vectors: npt.NDArray[np.float32], lengths: npt.NDArray[np.float32], bad: npt.NDArray[np.bool_]
) -> None:
    """Scale to length 1 what is not, in place; what has no direction is `bad`."""
    off = np.flatnonzero(~bad & (np.abs(lengths - 1) > _LENGTH_NOISE))
    if len(off):
        exact = vectors[off].astype(np.float64)
        exact_lengths = np.linalg.norm(exact, axis=1, keepdims=True)
        bad[off] = exact_lengths[:, 0] == 0
        vectors[off] = exact / np.where(exact_lengths == 0, 1, exact_lengths)
