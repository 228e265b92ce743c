"""Which of the jobs that are described under a root its service has: looked for by their names, without a ledger.

What follows from that is in `recovery.py`.
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batch_assets.control.descriptions import try_description
from batch_assets.control.pipeline import Pipeline, deferred
from batch_assets.control.pool_files import Member, pool_names, read_pool
from batch_assets.executors.jobs import JobDescription, another_name
from batch_assets.executors.service_jobs import NameTaken, ServiceJob
from batch_assets.retry_policy import NAMES_TRIED
from batch_assets.storage.threads import map_in_order, threads_for

ASKED_AT_ONCE = 8
"""Lists of a service need not tell what a job was asked: then each is one more call."""


@dataclass(frozen=True)
class AtService:
    """A submission that exists at the service, with the jobs that it carries."""

    job: ServiceJob
    members: tuple[Member, ...]


def find_at_service(
    pipeline: Pipeline, descriptions: Mapping[str, JobDescription]
) -> dict[Member, AtService]:
    """Which of these jobs, by their shards, the service has. Raises Unanswered."""
    # Of several of one name, which a lost answer may leave, the oldest that goes on counts, else the newest.
    own = sorted(
        deferred(pipeline).own_jobs(),
        key=lambda job: (not job.active, job.submitted_at if job.active else -job.submitted_at),
    )
    by_name: dict[str, list[ServiceJob]] = defaultdict(list)
    for job in own:
        by_name[job.name].append(job)

    def of_pool(name: str) -> AtService | None:
        members = tuple(read_pool(pipeline.storage, name))
        if not any(key in descriptions and descriptions[key].fence == fence for key, fence in members):
            return None
        job = _of_pool(pipeline, name, _descriptions_of(pipeline, members, descriptions), by_name)
        return None if job is None else AtService(job, members)

    def of_one(description: JobDescription) -> AtService | None:
        job = _of_one(pipeline, description, by_name)
        return None if job is None else AtService(job, ((description.shard, description.fence),))

    pools = map_in_order(of_pool, pool_names(pipeline.storage), ASKED_AT_ONCE)
    singles = map_in_order(of_one, descriptions.values(), ASKED_AT_ONCE)
    return {
        member: one for one in itertools.chain(pools, singles) if one is not None for member in one.members
    }


def find_by_name(
    pipeline: Pipeline,
    name: str,
    jobs: Sequence[JobDescription | None],
    own: Sequence[ServiceJob] | None = None,
) -> ServiceJob | None:
    """The submission of these jobs, of which a description may be lost. Raises Unanswered, NameTaken.

    `own` are the service's jobs of that name, where they are listed already.
    """
    executor = deferred(pipeline)
    known = [job for job in jobs if job is not None]
    if len(known) == len(jobs) or executor.commits:  # workers were told in a manifest
        return executor.find(name, known)
    # What exactly was asked cannot be told without all of them. The name tells enough: it is made of the root's
    # random id and of all requests, and to ask for the others once more would be paid for twice.
    return next((job for job in (executor.own_jobs() if own is None else own) if job.name == name), None)


def _descriptions_of(
    pipeline: Pipeline, members: Sequence[Member], known: Mapping[str, JobDescription]
) -> list[JobDescription | None]:
    """The descriptions of jobs that share a submission: of some the shard may be further on, and is not `known`."""

    def read(member: Member) -> JobDescription | None:
        found = known.get(member[0])
        return found if found and found.fence == member[1] else try_description(pipeline, *member)

    return list(map_in_order(read, members, threads_for(pipeline.storage)))


def _of_pool(
    pipeline: Pipeline,
    name: str,
    members: Sequence[JobDescription | None],
    by_name: Mapping[str, Sequence[ServiceJob]],
) -> ServiceJob | None:
    """The submission that these jobs share, by the name that was written down before its call."""
    executor = deferred(pipeline)
    jobs = [member for member in members if member is not None]
    if len(jobs) == len(members) or executor.commits:
        for job in by_name.get(name, ()):
            if executor.is_ours(job, jobs):
                return job
    try:
        # Not everything that speaks a service's protocol lists names by how they begin.
        return find_by_name(pipeline, name, members, by_name.get(name, ()))
    except NameTaken:
        return None  # which is why the jobs were submitted under another name


def _of_one(
    pipeline: Pipeline, description: JobDescription, by_name: Mapping[str, Sequence[ServiceJob]]
) -> ServiceJob | None:
    """The job's own submission: under its first name, or under one that follows where another job has that."""
    executor = deferred(pipeline)
    for prefix in executor.name_prefixes:
        _, name = executor.submission_name([description.key], prefix)
        for _ in range(NAMES_TRIED):
            for job in by_name.get(name, ()):
                if executor.is_ours(job, [description]):
                    return job
            name = another_name(name)
    return None
