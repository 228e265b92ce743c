"""What executors in place have in common: a job is ready at once, and the run that collects it is the work."""

from collections.abc import Sequence

from batch_assets.executors.base import JobHandle, JobState, JobStatus, PreparedJob
from batch_assets.sharding.plan import Shard


class InPlace:
    """The verbs in which nothing happens yet. See `base.Executor`."""

    in_place: bool = True

    def prepare(self, shard: Shard, attempt: int) -> PreparedJob:
        return PreparedJob(shard, attempt)

    def submit(self, jobs: Sequence[PreparedJob], token: str) -> list[JobHandle]:
        return [JobHandle(job, f"{token}/{job.shard.key}") for job in jobs]

    def poll(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        return [JobStatus(handle, JobState.READY) for handle in handles]
