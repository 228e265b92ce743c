"""What one job asks of a service: written beside its request files before anything is paid for.

The description makes a job known without the ledger: what it holds, what came before it, and
under which name it runs. What becomes of the job is the ledger's.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import orjson
import pydantic

from batch_assets import paths
from batch_assets.storage import Storage

JobKind = Literal["batch", "on_demand"]


@dataclass(frozen=True)
class RequestFile:
    """One uploaded file of requests; `path` is relative to the staging area."""

    path: str
    records: int
    bytes: int
    sha256: str


class JobKey(NamedTuple):
    """What tells a job from every other one; `digest` is of its request files."""

    shard: str
    fence: int
    digest: str


@dataclass(frozen=True)
class JobDescription:
    """One job: `fence` is the number of the claim it was rendered under, and never repeats.

    `attempt` counts from 1 how often the shard's records have been tried. `ordinals` are the
    records asked for, as runs (first, last), both included; `narrowed` maps those whose text was
    cut again, or whose file was made smaller, to how often. `refused` are records never sent, with
    code and message. `earlier` are the fences of the attempts whose rows are kept, `keep_fence` is a
    commit whose rows are kept; one up to `outdated_fence` does not count as done. `bound_usd` is the
    most that it can cost. `first_id` is the record id of ordinal 0. `failing_since` is when the first of the
    shard's jobs was submitted that have failed as a whole, one after the other (unix seconds).
    """

    pipeline: str
    shard: str
    fence: int
    attempt: int
    kind: JobKind
    fingerprint: str
    digest: str
    staging: str
    files: Sequence[RequestFile]
    records: int
    bytes: int
    bound_usd: float
    ordinals: Sequence[tuple[int, int]]
    narrowed: dict[int, int] = field(default_factory=dict)
    refused: Sequence[tuple[int, str, str]] = ()
    earlier: Sequence[int] = ()
    keep_fence: int | None = None
    first_id: int = 0
    outdated_fence: int = -1
    failing_since: float | None = None

    @property
    def key(self) -> JobKey:
        return JobKey(self.shard, self.fence, self.digest)

    @property
    def folder(self) -> str:
        """Where the request files lie, and nothing else."""
        return self.files[0].path.rsplit("/", 1)[0]

    def asked(self) -> Iterator[int]:
        """Every ordinal that the job asks for, ascending."""
        for first, last in self.ordinals:
            yield from range(first, last + 1)


_DESCRIPTION = pydantic.TypeAdapter(JobDescription)


def digest_of(files: Iterable[RequestFile]) -> str:
    """Digest (16 hex digits) of the request files: what they hold, and where they lie, as no others ever did."""
    return hashlib.sha256("".join(f"{file.path} {file.sha256}\n" for file in files).encode()).hexdigest()[:16]


def another_name(name: str) -> str:
    """The name of a submission where another job has this one: as long, and always the same."""
    head, _, digits = name.rpartition("-")
    return f"{head}-{hashlib.sha256(name.encode()).hexdigest()[: len(digits)]}"


def runs_of(ordinals: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending ordinals as runs (first, last)."""
    runs: list[tuple[int, int]] = []
    for ordinal in ordinals:
        if runs and ordinal == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], ordinal)
        else:
            runs.append((ordinal, ordinal))
    return runs


def write_description(storage: Storage, job: JobDescription) -> None:
    """Put the description beside the pipeline's other files."""
    content = orjson.dumps(job, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
    storage.write(paths.job_description(job.shard, job.fence), content + b"\n")


def read_description(storage: Storage, shard: str, fence: int) -> JobDescription | None:
    """The description of a job, or None where there is none. ValueError for what is none."""
    found = storage.read_versioned(paths.job_description(shard, fence))
    return None if found is None else _DESCRIPTION.validate_json(found[0])
