"""What became of records: the columnar batch that executors yield and the shard writer takes."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from batch_assets.sources.base import Records


@dataclass(frozen=True)
class Failure:
    """A valid record that the model or the service did not embed. `row` indexes its `Records`.

    `retryable`: another attempt at it may succeed; otherwise it has failed for good. `rejected`: it
    is bad input, found out only where the work is, such as a broken image.
    """

    row: int
    code: str
    message: str
    attempts: int = 1
    retryable: bool = False
    rejected: bool = False


@dataclass
class Outcomes:
    """The outcome of every record of `records`: embedded or failed; its rejections ride along.

    `rows` (n) are the indices into `records` of the embedded ones, ascending; `vectors` is
    (n, dimensions) float32; `token_counts` (n) is what the model saw, special tokens included.
    Every index is either in `rows` or in exactly one of `failures`.

    A pipeline whose task is `generate` has answers in place of vectors: `responses` (n) texts and
    `output_tokens` (n) their tokens; `vectors` is then (n, 0) and `token_counts` the input tokens.
    """

    records: Records
    rows: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    token_counts: npt.NDArray[np.int32]
    failures: list[Failure] = field(default_factory=list)
    responses: list[str] | None = None
    output_tokens: npt.NDArray[np.int32] | None = None
