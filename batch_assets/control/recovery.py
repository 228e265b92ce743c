"""After a lost ledger: the jobs that the root and the service know of, told to the new one.

Nothing is submitted before this is done, so no job runs twice and none is forgotten. Commit
markers are taken up in `pipeline.py`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from batch_assets.control.keeping import read_attempt
from batch_assets.control.pipeline import Pipeline, deferred
from batch_assets.control.submission import NAMES_TRIED
from batch_assets.embeddings.marker import read_marker
from batch_assets.errors import AccountingError, StorageError
from batch_assets.executors.deferred import DeferredExecutor, NameTaken, ServiceJob, Unanswered
from batch_assets.executors.jobs import JobDescription, another_name, read_description
from batch_assets.ledger.rows import JobRow, ShardRow
from batch_assets.ledger.states import State, SubmissionState
from batch_assets.plain_text import plain_logger
from batch_assets.storage.threads import map_in_order, threads_for

logger = plain_logger(__name__)


@dataclass(frozen=True)
class _AtService:
    """A submission that exists at the service, with the jobs (shard, fence) that it carries."""

    job: ServiceJob
    members: tuple[tuple[str, int], ...]


class _Commit(NamedTuple):
    """A committed shard: under which claim, and what all its commits have cost."""

    fence: int
    spent_usd: float


def recover_jobs(pipeline: Pipeline) -> None:
    """Tell the ledger of every job that was described under the root, and where each stands.

    Raises StorageError where the service is silent: then nothing may be submitted yet.
    """
    try:
        _recover(pipeline)
    except Unanswered as error:
        raise StorageError(
            f"pipeline {pipeline.name}: which of its jobs exist cannot be asked ({error}), so none is "
            "started; try again"
        ) from error


def _recover(pipeline: Pipeline) -> None:
    descriptions, commits = _newest_descriptions(pipeline), _commits(pipeline)
    under_way = {key: job for key, job in descriptions.items() if _is_news(job, commits)}
    spent = sum(commit.spent_usd for commit in commits.values()) + _spent_on_attempts(pipeline, under_way)
    if spent:
        pipeline.ledger.set_spent(pipeline.name, spent)
    if not under_way:
        return
    at_service = _at_service(pipeline, under_way)
    rows = {row.key: row for row in pipeline.ledger.shards(pipeline.name, keys=sorted(under_way))}
    adopted: set[str] = set()
    for key, description in under_way.items():
        if key not in rows:
            continue
        found = at_service.get((key, description.fence))
        if found is None:
            _restore(pipeline, rows[key], description)
        elif found.job.name not in adopted:
            adopted.add(found.job.name)
            _adopt(pipeline, found, rows, under_way)
    logger.info(
        "pipeline %s: %d jobs are known again, %d submissions of them at the service",
        pipeline.name, len(under_way), len(adopted),
    )  # fmt: skip


def _is_news(description: JobDescription, commits: Mapping[str, _Commit]) -> bool:
    """Whether the job is newer than what is committed."""
    commit = commits.get(description.shard)
    return commit is None or description.fence > commit.fence


def _newest_descriptions(pipeline: Pipeline) -> dict[str, JobDescription]:
    """The newest job of each shard, by the highest fence."""
    newest: dict[str, int] = {}
    for info in pipeline.storage.list("jobs"):
        parts = info.path.split("/")
        if len(parts) == 4 and parts[3] == "job.json" and parts[2].isdigit():
            newest[parts[1]] = max(newest.get(parts[1], -1), int(parts[2]))

    def read(item: tuple[str, int]) -> JobDescription | None:
        try:
            return read_description(pipeline.storage, *item)
        except ValueError as error:
            logger.warning("shard %s: job %d is not to be read: %s", *item, error)
            return None

    found = map_in_order(read, sorted(newest.items()), threads_for(pipeline.storage))
    return {description.shard: description for description in found if description is not None}


def _commits(pipeline: Pipeline) -> dict[str, _Commit]:
    """The commits that count, by their markers."""

    def read(key: str) -> _Commit | None:
        try:
            found = read_marker(pipeline.storage, key)
        except AccountingError:
            return None
        return None if found is None else _Commit(found[0].fence, found[0].spent_usd)

    committed = [row.key for row in pipeline.ledger.shards(pipeline.name, states=[State.COLLECTED])]
    found = map_in_order(read, committed, threads_for(pipeline.storage))
    return {key: commit for key, commit in zip(committed, found, strict=True) if commit is not None}


def _spent_on_attempts(pipeline: Pipeline, under_way: Mapping[str, JobDescription]) -> float:
    """What earlier attempts of shards that are not committed since have cost."""
    spent = 0.0
    for description in under_way.values():
        for fence in description.earlier:
            attempt = read_attempt(pipeline.storage, description.shard, fence)
            spent += (attempt.cost_usd or 0.0) if attempt is not None else 0.0
    return spent


def _at_service(
    pipeline: Pipeline, descriptions: Mapping[str, JobDescription]
) -> dict[tuple[str, int], _AtService]:
    """Which of the jobs the service has, by (shard, fence)."""
    executor = deferred(pipeline)
    # Of several of one name, which a lost answer may leave, the oldest that goes on counts, else the newest.
    own = sorted(
        executor.own_jobs(),
        key=lambda job: (not job.active, job.submitted_at if job.active else -job.submitted_at),
    )
    by_name: dict[str, list[ServiceJob]] = defaultdict(list)
    for job in own:
        by_name[job.name].append(job)
    found: dict[tuple[str, int], _AtService] = {}
    for info in pipeline.storage.list("jobs/pools"):
        if not info.path.endswith(".json"):
            continue  # without a staging area, pools' request and result files lie here too
        pool = orjson.loads(pipeline.storage.read(info.path))
        members = tuple((member["shard"], int(member["fence"])) for member in pool["jobs"])
        if not any(key in descriptions and descriptions[key].fence == fence for key, fence in members):
            continue
        jobs = _descriptions_of(pipeline, members, descriptions)
        job = _of_pool(executor, pool["name"], jobs, by_name)
        if job is not None:
            found |= {member: _AtService(job, members) for member in members}
    for key, description in descriptions.items():
        job = _of_one(executor, description, by_name)
        if job is not None:
            member = (key, description.fence)
            found[member] = _AtService(job, (member,))
    return found


def _descriptions_of(
    pipeline: Pipeline, members: Sequence[tuple[str, int]], known: Mapping[str, JobDescription]
) -> list[JobDescription | None]:
    """The descriptions of jobs that share a submission: of some the shard may be further on, and is not `known`."""

    def read(member: tuple[str, int]) -> JobDescription | None:
        shard, fence = member
        found = known.get(shard)
        return found if found and found.fence == fence else read_description(pipeline.storage, shard, fence)

    return list(map_in_order(read, members, threads_for(pipeline.storage)))


def _of_pool(
    executor: DeferredExecutor,
    name: str,
    members: Sequence[JobDescription | None],
    by_name: Mapping[str, Sequence[ServiceJob]],
) -> ServiceJob | None:
    """The submission that these jobs share, by the name that was written down before its call."""
    jobs = [member for member in members if member is not None]
    if len(jobs) < len(members):
        return None  # whose the job of that name is cannot be told
    for job in by_name.get(name, ()):
        if executor.is_ours(job, jobs):
            return job
    try:
        # Not everything that speaks a service's protocol lists names by how they begin.
        return executor.find(name, jobs)
    except NameTaken:
        return None  # which is why the jobs were submitted under another name


def _of_one(
    executor: DeferredExecutor, description: JobDescription, by_name: Mapping[str, Sequence[ServiceJob]]
) -> ServiceJob | None:
    """The job's own submission: under its first name, or under one that follows where another job has that."""
    for prefix in executor.name_prefixes:
        _, name = executor.submission_name([description.key], prefix)
        for _ in range(NAMES_TRIED):
            for job in by_name.get(name, ()):
                if executor.is_ours(job, [description]):
                    return job
            name = another_name(name)
    return None


def _restore(pipeline: Pipeline, row: ShardRow, description: JobDescription) -> None:
    """Its requests are uploaded and the service has no such job: it waits in the queue again."""
    if row.state is State.COLLECTED:
        return  # another try that nobody has started: whoever wanted it says so again
    pipeline.ledger.restore_queued(
        pipeline.name,
        description.shard,
        description.fence,
        description.kind,
        description.records,
        description.bytes,
        description.bound_usd,
        description.digest,
    )


def _adopt(
    pipeline: Pipeline,
    found: _AtService,
    rows: Mapping[str, ShardRow],
    descriptions: Mapping[str, JobDescription],
) -> None:
    ledger, executor = pipeline.ledger, deferred(pipeline)
    # Of a pool some may be further on, or committed: those are not taken back.
    jobs = [descriptions[key] for key, fence in found.members
            if key in rows and key in descriptions and descriptions[key].fence == fence]  # fmt: skip
    for description in jobs:
        if rows[description.shard].state is State.COLLECTED:
            ledger.recompute(pipeline.name, [description.shard], keep=description.keep_fence is not None)
    token, _ = executor.submission_name([description.key for description in jobs])
    carried = [
        JobRow(
            pipeline.name,
            job.shard,
            job.fence,
            job.kind,
            job.records,
            job.bytes,
            job.bound_usd,
            digest=job.digest,
        )
        for job in jobs
    ]
    ledger.adopt_submission(
        token, found.job.name, executor.scope, found.job.id, carried, found.job.submitted_at or None
    )
    if not found.job.active:
        ledger.observe(
            token,
            SubmissionState(found.job.state.value),
            message=found.job.message or None,
            ended_at=ledger.now(),
        )
