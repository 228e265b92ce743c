"""After a lost ledger: the jobs that the root and the service know of, told to the new one.

Nothing is submitted before this is done, so no job runs twice and none is forgotten. Commit
markers are taken up in `pipeline.py`.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from batch_assets import paths
from batch_assets.control.at_service import AtService, find_at_service
from batch_assets.control.descriptions import try_description
from batch_assets.control.keeping import read_attempt
from batch_assets.control.pipeline import Pipeline, deferred
from batch_assets.embeddings.marker import read_marker
from batch_assets.errors import AccountingError, StorageError
from batch_assets.executors.jobs import JobDescription
from batch_assets.executors.service_jobs import Unanswered
from batch_assets.ledger.rows import JobRow, ShardRow
from batch_assets.ledger.states import State, SubmissionState
from batch_assets.plain_text import plain_logger
from batch_assets.storage.threads import map_in_order, threads_for

logger = plain_logger(__name__)


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
    at_service = find_at_service(pipeline, under_way)
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
    """The newest job of each shard, by the highest fence; where its description is damaged, the one before it."""
    fences: dict[str, list[int]] = defaultdict(list)
    for info in pipeline.storage.list("jobs"):
        parts = info.path.split("/")
        if len(parts) == 4 and parts[3] == "job.json" and parts[2].isdigit():
            fences[parts[1]].append(int(parts[2]))

    def read(shard: str) -> JobDescription | None:
        newest_first = sorted(fences[shard], reverse=True)
        found = (try_description(pipeline, shard, fence) for fence in newest_first)
        return next((description for description in found if description is not None), None)

    found = map_in_order(read, sorted(fences), threads_for(pipeline.storage))
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
            try:
                attempt = read_attempt(pipeline.storage, description.shard, fence)
            except ValueError as error:
                logger.warning(
                    "%s/%s is damaged (%s), so what that attempt has cost is not counted",
                    pipeline.storage.uri, paths.attempt_marker(description.shard, fence), error,
                )  # fmt: skip
                continue
            spent += (attempt.cost_usd or 0.0) if attempt is not None else 0.0
    return spent


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
    found: AtService,
    rows: Mapping[str, ShardRow],
    descriptions: Mapping[str, JobDescription],
) -> None:
    ledger, executor = pipeline.ledger, deferred(pipeline)
    # Of a pool some may be further on, or committed: those are not taken back.
    jobs = [descriptions[key] for key, fence in found.members
            if key in rows and key in descriptions and descriptions[key].fence == fence]  # fmt: skip
    for description in jobs:
        if rows[description.shard].state is State.COLLECTED:
            keep = description.keep_fence is not None
            why = "another job of it was found at the service"
            ledger.recompute(pipeline.name, [description.shard], why=why, keep=keep, place=pipeline.place)
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
        token, found.job.name, executor.quota_group, found.job.id, carried, found.job.submitted_at or None
    )
    if not found.job.active:
        ledger.observe(
            token,
            SubmissionState(found.job.state.value),
            message=found.job.message or None,
            ended_at=ledger.now(),
        )
