"""What the ledger hands out: frozen copies of its rows, as they were when read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from batch_assets.ledger import schema
from batch_assets.ledger.budget import Budget
from batch_assets.ledger.holder import Holder
from batch_assets.ledger.states import BreakerState, State, SubmissionState

JobKind = Literal["batch", "on_demand"]
BlockedKind = Literal["budget", "refused", "output", "failing"]


@dataclass(frozen=True)
class PipelineRow:
    """A pipeline. `planned` counts the records of its shards, superseded ones left out.

    `merged_revision` is the revision that the published version was made from. `deferred`: its
    shards are jobs at a service, and `recovered` that this ledger knows all of them. `blocked` says
    why nothing more is submitted.
    """

    name: str
    root: str
    epoch: int
    fingerprint: str | None
    generation: int
    revision: int
    planned: int
    stop_requested: bool
    merged_revision: int | None
    deferred: bool
    recovered: bool
    held_usd: float
    spent_usd: float
    blocked: str | None
    blocked_kind: BlockedKind | None
    deployment: str | None = None


@dataclass(frozen=True)
class ShardRow:
    """A shard. `records`, `rejected`, `embedded`, `failed` count records; `updated_at` is unix seconds.

    `fingerprint` is that of the last commit, also while the shard is computed again. `job` is
    the fence of the newest job. `before` is where a claim that is given back puts the shard.
    `collect_after` is set while there is something to collect, and says from when on.
    `collections` counts the claims that failed since. The rows of the commit with the fence
    `keep_fence` are kept when the shard is done again; a commit up to `outdated_fence` counts no longer.
    """

    pipeline: str
    key: str
    generation: int
    ordinal: int
    state: State
    records: int
    bytes: int
    rejected: int
    embedded: int
    failed: int
    tokens: int | None
    attempt: int
    fence: int
    fingerprint: str | None
    holder: Holder | None
    run_id: str | None
    error: str | None
    superseded: bool
    picture: str | None
    revision: int
    updated_at: float
    job: int | None
    before: State | None
    collect_after: float | None
    collections: int
    keep_fence: int | None
    outdated_fence: int = -1


SHARD_COLUMNS = tuple(schema.shards.c[name] for name in ShardRow.__dataclass_fields__)


def shard_row(values: Mapping[Any, Any]) -> ShardRow:
    """A ShardRow from a row of SHARD_COLUMNS."""
    holder = Holder.decode(values["holder"]) if values["holder"] is not None else None
    fields: dict[str, Any] = {name: values[name] for name in ShardRow.__dataclass_fields__}
    before = State(values["before"]) if values["before"] is not None else None
    fields |= {"state": State(values["state"]), "holder": holder, "before": before}
    return ShardRow(**fields)


class Place(NamedTuple):
    """The output root that a pipeline was opened on, with the id of its making; None where it has none yet."""

    root: str
    deployment: str | None


@dataclass(frozen=True)
class Claim:
    """The right to work on one shard, until another claim has a higher fence.

    `before` is where the shard stood, and goes when the claim is given back. With `place`, it is
    lost where the pipeline has moved to another one: shards there have the same keys.
    """

    pipeline: str
    shard: str
    fence: int
    attempt: int
    holder: Holder
    before: State = State.READY
    place: Place | None = None


@dataclass(frozen=True)
class Adoption:
    """What a commit marker says: the shard is committed, whatever the ledger believed."""

    key: str
    fence: int
    fingerprint: str
    embedded: int
    rejected: int
    failed: int
    tokens: int | None


@dataclass(frozen=True)
class Totals:
    """Sums over a pipeline's shards, superseded ones left out; records unless said otherwise.

    `stale` and `stale_shards`: committed under another fingerprint than the pipeline has now.
    """

    shards: int
    planned: int
    bytes: int
    rejected: int
    embedded: int
    failed: int
    tokens: int
    stale: int
    stale_shards: int


@dataclass(frozen=True)
class Ends:
    """Planned records by what became of them: `failed` are rejected and failed ones, and those of shards given up."""

    embedded: int
    failed: int
    under_way: int


@dataclass(frozen=True)
class FileRow:
    """A source file as it was when its shards were planned; `state` is planned, touched or removed."""

    path: str
    size: int
    version: str
    generation: int
    state: str


@dataclass(frozen=True)
class JobRow:
    """One attempt at a shard, or at what is left of it. `fence` is that of the claim that rendered it.

    `bound_usd` is the most that it can cost, `held_usd` the same while that is reserved,
    `cost_usd` what it did cost, once. `submission` is a token, `digest` that of its requests.
    `state` is how it ended where its submission may go on with others, None else.
    """

    pipeline: str
    shard: str
    fence: int
    kind: JobKind
    records: int
    bytes: int
    bound_usd: float
    held_usd: float | None = None
    cost_usd: float | None = None
    submission: str | None = None
    queued_at: float = 0.0
    digest: str = ""
    state: str | None = None


@dataclass(frozen=True)
class SubmissionRow:
    """One call to the service that starts work, known by its token. Times are unix seconds.

    `jobs` and `records` count; `bound_usd` is the most that all of it can cost.
    """

    token: str
    pipeline: str
    scope: str
    name: str
    service_id: str | None
    state: SubmissionState
    message: str | None
    jobs: int
    records: int
    bound_usd: float
    claimed_at: float
    submitted_at: float | None
    ended_at: float | None


@dataclass(frozen=True)
class SubmissionRules:
    """What a pipeline's settings and the service's limits say of its submissions.

    The highest priority goes first. Spent and held together may not pass the `budget`. A job
    of fewer than `min_records` goes with others, of at most `max_records` together.

    Where a submission takes many jobs (`together` above 1), it takes all that are queued, as long
    as no more than `alive` of the pipeline's are; and it waits for more to come until the queue
    has been quiet for `gather_seconds`, or the oldest has waited ten times as long.

    `place` is the output root where the jobs' requests are: none is taken once the pipeline has left it.
    """

    priority: int = 0
    budget: Budget = field(default_factory=Budget)
    min_records: int = 0
    max_records: int | None = None
    together: int = 1
    alive: int | None = None
    gather_seconds: float = 0.0
    place: Place | None = None


@dataclass(frozen=True)
class SubmissionClaim:
    """A slot, and the jobs that are to be submitted in it under this token and name."""

    token: str
    name: str
    pipeline: str
    scope: str
    jobs: list[JobRow]


@dataclass(frozen=True)
class Waiting:
    """Nothing is to be submitted now. `until` (unix seconds) is known for a pause alone.

    paused: the service asked for patience; full: no free slot; budget: the next job does not
    fit; pool: too few records are queued for a submission; gathering: more jobs may come into it;
    probing: how the jobs end that are there decides whether more are submitted; empty: nothing is queued.
    """

    reason: Literal["paused", "full", "budget", "pool", "gathering", "probing", "empty"]
    until: float | None = None
    message: str = ""


@dataclass(frozen=True)
class ScopeRow:
    """Jobs of one scope share `slots` (None: not known yet), also with `foreign_jobs` of others.

    `foreign_jobs` and `oldest_active` (when the oldest active job was made) were seen at
    `observed_at`. `rejections` counts the pauses since a job last ended; from `calls_from` on
    the next call may be made. Times are unix seconds.
    """

    name: str
    slots: int | None = None
    foreign_jobs: int = 0
    observed_at: float | None = None
    oldest_active: float | None = None
    paused_until: float = 0.0
    rejections: int = 0
    calls_from: float = 0.0


@dataclass(frozen=True)
class Money:
    """A pipeline's dollars: reserved by jobs that are not settled, and spent by those that are.

    `blocked` says why nothing more is submitted: the budget, a refusal of the service, jobs whose
    output is not what was asked for, or jobs that fail as a whole.
    """

    held_usd: float
    spent_usd: float
    blocked: str | None
    blocked_kind: BlockedKind | None

    @property
    def refused(self) -> str | None:
        """Why nothing is submitted until a person has changed something; None where that is not so."""
        return self.blocked if self.blocked_kind in ("refused", "output", "failing") else None


@dataclass(frozen=True)
class WholeFailure:
    """A job of which no record did well, for one and the same reason.

    `alike` is that reason without what differs from record to record, `message` what a person is told
    where nothing more is submitted for it. `jobs` are as many as were submitted with it, at `claimed_at`;
    `settings` is the digest of the pipeline's settings now.
    """

    shard: str
    fence: int
    jobs: int
    alike: str
    message: str
    claimed_at: float
    settings: str


@dataclass(frozen=True)
class BreakerRow:
    """How many jobs of a pipeline have failed as a whole with none between that did well, and what may be submitted.

    `since` is when it came to be in this state; `settings` are the digests of all that were tried. Jobs submitted
    before `renewed_at` tell nothing of what a person has mended; `insisted`, that the person changed no setting.
    """

    pipeline: str
    state: BreakerState
    alike: str
    failures: int
    message: str
    since: float
    settings: str
    renewed_at: float
    insisted: bool
