"""One attempt at a shard: what whoever makes it is told, and how far it says that it is."""

import contextlib
import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass

from batch_assets.embeddings.marker import ShardMarker
from batch_assets.embeddings.schema import EMBED, Task
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import PlanSummary, Shard

RUNS_OF_A_ROOT = 1000


@dataclass(frozen=True)
class Attempt:
    """Which shard is to be embedded or answered, under which claim, and what its marker says of that.

    `fence` is the claim's number, `number` counts the attempts from 1, `job` names this one. `fingerprint` is that of
    the pipeline. A marker up to `outdated_fence` does not count as done. `deployment` is the random id of the output
    root, None where it has none. `run`: see `paths.embeddings`. `usd_per_hour` is the price of what computes. `plan` is
    the summary of the shard's generation, None where it is still to be read.
    """

    settings: PipelineSettings
    shard: Shard
    fence: int
    number: int
    fingerprint: str
    executor: str
    job: str
    task: Task = EMBED
    outdated_fence: int = -1
    deployment: str | None = None
    run: int = 0
    usd_per_hour: float | None = None
    plan: PlanSummary | None = None


@dataclass(frozen=True)
class Processed:
    """So many records, and tokens, have gone through since the last step."""

    records: int
    tokens: int


@dataclass(frozen=True)
class Written:
    """Every record is in the data files; the next step commits them."""


Step = Processed | Written
ShardRun = Generator[Step, None, ShardMarker]
"""An attempt under way: each `next` brings it a stretch further, `close` ends it without a commit.

It returns the marker that stands in the end: the attempt's own, or another's that made it needless.
"""


def follow(run: ShardRun, heed: Callable[[Step], None] = lambda step: None) -> ShardMarker:
    """Go on to the end, with `heed` called for each step; what it raises ends the run."""
    with contextlib.closing(run):  # not when the garbage is collected: whatever computes is free again then
        while True:
            try:
                step = next(run)
            except StopIteration as ended:
                return ended.value
            heed(step)


def first_run(deployment: str | None) -> int:
    """Where the numbers of an output root's runs begin; those of one without an id are at 0.

    Where ledger and root are gone, fences begin anew: a late worker would write over what the new root has.
    """
    if deployment is None:
        return 0
    return (1 + int(hashlib.sha256(deployment.encode()).hexdigest()[:6], 16)) * RUNS_OF_A_ROOT
