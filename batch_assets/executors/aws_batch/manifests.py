"""What the workers of one submission are told: see `worker/assignment.py` for how they take it."""

from collections.abc import Sequence
from typing import Any

import orjson

from batch_assets import paths
from batch_assets.executors.aws_batch.requests import asked, worker_command
from batch_assets.executors.jobs import JobDescription
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import Storage
from batch_assets.worker.assignment import Assignment, WorkerManifest, with_digest


def told(root: Storage, name: str) -> list[dict[str, Any]]:
    """What a submission of that name asks, by the manifest that its workers were told.

    Empty where nobody was told anything under this root, or what lies there cannot be read. Earlier commands left the
    manifest's digest out.
    """
    path = paths.worker_manifest(name)
    found = root.read_versioned(path)
    if found is None:
        return []
    try:
        jobs, uri = len(orjson.loads(found[0])["assignments"]), f"{root.uri}/{path}"
    except (ValueError, KeyError, TypeError):
        return []
    return [asked(worker_command(each), jobs) for each in (with_digest(uri, found[0]), uri)]


def manifest_of(
    settings: PipelineSettings,
    fingerprint: str,
    name: str,
    jobs: Sequence[JobDescription],
    alive: int | None,
    usd_per_hour: float | None,
    deployment: str | None,
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
        deployment=deployment,
    )
