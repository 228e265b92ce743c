"""What the workers of one submission are told: see `worker/assignment.py` for how they take it."""

from collections.abc import Sequence

from batch_assets.executors.jobs import JobDescription
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.worker.assignment import Assignment, WorkerManifest


def manifest_of(
    settings: PipelineSettings,
    fingerprint: str,
    name: str,
    jobs: Sequence[JobDescription],
    alive: int | None,
    usd_per_hour: float | None,
) -> WorkerManifest:
    """The manifest of these jobs; `alive` is how many workers of the pipeline there may be at once.

    `fingerprint` is that of `settings`, by which the workers embed: a job may have been queued under others.
    """
    cap = settings.calls_per_second
    if cap is not None:
        # Workers cannot ask each other: each keeps to its share of the cap.
        settings = settings.model_copy(update={"calls_per_second": cap / (alive or 1)})
    return WorkerManifest(
        name=name,
        fingerprint=fingerprint,
        executor=settings.executor.type,
        settings=settings.model_dump(mode="json"),
        assignments=[Assignment(job.shard, job.fence, job.attempt, job.outdated_fence) for job in jobs],
        usd_per_hour=usd_per_hour,
    )
