"""Rows that are paid for already and are not asked for again: of a commit, and of earlier attempts."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
import pydantic

from batch_assets import paths
from batch_assets.control.pipeline import Pipeline
from batch_assets.embeddings.committed import load_committed
from batch_assets.embeddings.job_rows import JobRows
from batch_assets.embeddings.marker import read_marker
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.reading import read_shard
from batch_assets.storage import Storage


@dataclass(frozen=True)
class AttemptMarker:
    """`attempt.json`: what one attempt settled of a shard that needs another one. `job` is the fence of its job."""

    shard: str
    fence: int
    job: int
    attempt: int
    service_job: str
    embedded: int
    failed: int
    again: int
    reasons: dict[str, int]
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


_ATTEMPT = pydantic.TypeAdapter(AttemptMarker)


def write_attempt(storage: Storage, marker: AttemptMarker) -> None:
    """Written after the rows: with it they count."""
    content = orjson.dumps(marker, option=orjson.OPT_INDENT_2)
    storage.write(paths.attempt_marker(marker.shard, marker.fence), content + b"\n")


def read_attempt(storage: Storage, shard: str, fence: int) -> AttemptMarker | None:
    """What an attempt settled; None where it never came to that."""
    found = storage.read_versioned(paths.attempt_marker(shard, fence))
    return None if found is None else _ATTEMPT.validate_json(found[0])


def load_commit(pipeline: Pipeline, shard: Shard, fence: int, rows: JobRows) -> npt.NDArray[np.int64]:
    """Take the embedded rows of a commit into `rows`; the ordinals of all the shard's valid records."""
    found = read_marker(pipeline.storage, shard.key)
    path = paths.embeddings(shard.key, fence)
    if found is not None and found[0].fence == fence:
        path = found[0].embeddings.path
    records = read_shard(pipeline.settings, shard, pipeline.summary_of(shard.key), pipeline.storage)
    return load_committed(pipeline.storage, path, records, rows)
