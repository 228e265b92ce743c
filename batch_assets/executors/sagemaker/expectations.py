"""Whether a job's answers are what the pipeline asked for at all: told by the first of them.

A single odd answer is its record's own fault. Where none is as expected, the next job would be
no better, and nothing more should be paid for.
"""

from collections import Counter
from enum import Enum

from batch_assets import paths
from batch_assets.embeddings.marker import read_marker
from batch_assets.errors import AccountingError
from batch_assets.executors.service_jobs import UnexpectedOutput
from batch_assets.storage import open_storage

ENOUGH = 3
GO_ON = "then `batch-assets run` goes on"
POOL = (
    "name a pooling model in executor.model_name, or have the container pool (examples/sagemaker/inference.py of the "
    "project shows how)"
)


class Odd(Enum):
    """In what way an answer is not as expected; the value is what to do if all are so."""

    TOKENS = f"that is a vector for each token, so the model has no pooling: {POOL}"
    WIDTH = (
        "so the container has another model than was asked for: name the right one in executor.model_name; if it is "
        "right, change model.dimensions or executor.environment, and everything is embedded anew"
    )
    UNREADABLE = (
        "name the field that holds the result in executor.output_field, or a model of this pipeline's task in "
        "executor.model_name"
    )


class Expectations:
    """Counts odd answers of a job as long as no good one has come.

    Where earlier attempts at the shard had answers that were good (`settled`), whatever is odd now
    is a few records' own fault.
    """

    def __init__(self, *, settled: bool) -> None:
        self._settled = settled
        self._counts: Counter[Odd] = Counter()
        self._words: dict[Odd, str] = {}

    def good(self) -> None:
        """An answer is as expected: from here on odd ones are exceptions."""
        self._settled = True

    def odd(self, kind: Odd, words: str) -> None:
        """Raise UnexpectedOutput where no good answers have come, and enough of a wrong shape."""
        if self._settled:
            return
        self._counts[kind] += 1
        self._words.setdefault(kind, words)
        # What cannot be read may be a container's way of saying that a record is bad: all of the job is looked at.
        if kind is not Odd.UNREADABLE and self._counts[kind] >= ENOUGH:
            self._raise(kind)

    def end(self) -> None:
        """All answers of the job have come. Raises UnexpectedOutput where none was good."""
        if self._settled or not self._counts:
            return
        kind, count = self._counts.most_common(1)[0]
        if kind is not Odd.UNREADABLE or count >= ENOUGH:
            self._raise(kind)

    def _raise(self, kind: Odd) -> None:
        raise UnexpectedOutput(
            f"of what the container answers nothing can be used; of the first record {self._words[kind]}; "
            f"{kind.value}, {GO_ON}"
        )


def first_width(root: str, fingerprint: str) -> int:
    """Dimensions of the vectors of a pipeline's first shard, once it is committed: one small file to read. Else 0."""
    try:
        found = read_marker(open_storage(root), paths.shard_key(1, 0))
    except AccountingError:
        return 0
    if found is None or not found[0].embeddings.rows or found[0].fingerprint != fingerprint:
        return 0
    return found[0].dimensions
