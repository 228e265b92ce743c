"""All that the rehearsal knows of AWS Batch's jobs, for a person and for tests."""

from dataclasses import asdict
from typing import Any

from batch_assets.rehearsal.batch.describing import detail
from batch_assets.rehearsal.batch.jobs import BatchJobs

MOST_CHILDREN = 100


def batch_jobs_shown(jobs: BatchJobs) -> list[dict[str, Any]]:
    """Every plain job and array, with the log's end of those that have failed."""
    with jobs.lock:
        shown: list[dict[str, Any]] = []
        for job in jobs.all():
            leaves = job.children or [job]
            failed = [leaf for leaf in leaves if leaf.status == "FAILED"][:MOST_CHILDREN]
            shown.append(
                detail(job)
                | {
                    "service": "batch",
                    "region": job.region,
                    "fate": asdict(job.fate),
                    "failed": {leaf.id: {"reason": leaf.reason, "log": jobs.log(leaf)} for leaf in failed},
                }
            )
        return shown
