"""One assignment carried out in a container, which reaches the output root, and no ledger.

What makes it harmless to run twice, also at the same time: a worker takes a number of its own before
it writes, so that no two write files of one name, and puts the marker only over the one it has
seen. The numbers of two output roots that lay at one place, one after the other, never meet. Which
shard it is to be is in `assignment.py`, the work itself in `run_shard.py`.
"""

import os
import secrets
import traceback
from dataclasses import replace

import orjson

from batch_assets import paths
from batch_assets.embeddings.marker import ShardMarker, standing_marker
from batch_assets.encoders.base import Encoder
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.encoders.registry import load_encoder
from batch_assets.errors import AccountingError, ModelError, SourceError, StorageError
from batch_assets.plain_text import plain_logger
from batch_assets.sharding.plan_files import read_shards
from batch_assets.storage import Storage, open_storage
from batch_assets.worker.assignment import Assignment, WorkerManifest
from batch_assets.worker.attempt import RUNS_OF_A_ROOT, Attempt, first_run, follow
from batch_assets.worker.commit import is_done, is_same_root, root_removed
from batch_assets.worker.run_shard import embedding, run_shard

logger = plain_logger(__name__)


def carry_out(manifest: WorkerManifest, assignment: Assignment, job: str) -> ShardMarker:
    """Bring a shard to its commit; the marker that stands in the end, this worker's or another's.

    `job` is the worker's name at its service. Raises ModelError where the weights here are not
    those that the pipeline has, ConfigurationError where the output root is another one by now,
    SourceError, StorageError, AccountingError, ClaimLost.
    """
    settings = manifest.pipeline
    storage = open_storage(settings.output.root)
    attempt = _attempt(storage, manifest, assignment, job)
    found, _ = standing_marker(storage, assignment.shard)
    if found is not None and is_done(storage, found, attempt):
        logger.info("shard %s is committed already, under fence %d", assignment.shard, found.fence)
        return found
    attempt, mark = _take_run(storage, attempt)
    try:
        marker = follow(run_shard(attempt, storage, embedding(attempt.settings, lambda: _load(attempt))))
    except BaseException as error:
        _give_up(storage, attempt, mark, error)
        raise
    if (marker.fence, marker.run) != (attempt.fence, attempt.run):
        _discard(storage, attempt, mark)
        return marker
    logger.info("shard %s: %s", marker.shard, ", ".join(f"{n} {what}" for what, n in marker.counts.items()))
    return marker


def _attempt(storage: Storage, manifest: WorkerManifest, assignment: Assignment, job: str) -> Attempt:
    if not is_same_root(storage, manifest.deployment):
        raise root_removed(storage, assignment.shard)
    shards = read_shards(storage, paths.shard_generation(assignment.shard), [assignment.shard])
    if not shards:
        raise SourceError(f"shard {assignment.shard} is in no plan under {storage.uri}")
    return Attempt(
        settings=manifest.pipeline,
        shard=shards[0],
        fence=assignment.fence,
        number=assignment.attempt,
        fingerprint=manifest.fingerprint,
        executor=manifest.executor,
        job=job,
        outdated_fence=assignment.outdated_fence,
        deployment=manifest.deployment,
        usd_per_hour=manifest.usd_per_hour,
    )


def _take_run(storage: Storage, attempt: Attempt) -> tuple[Attempt, bytes]:
    """The attempt with a number that no other worker has under this fence, and what says whose it is."""
    begin = first_run(attempt.deployment)
    # Nobody else's is like it: where the answer to the write is lost, it tells whose the number is.
    mark = {"job": attempt.job, "host": os.uname().nodename, "pid": os.getpid(), "mark": secrets.token_hex(8)}
    told = orjson.dumps(mark) + b"\n"
    for run in range(begin, begin + RUNS_OF_A_ROOT):
        if storage.create(paths.worker_run(attempt.shard.key, attempt.fence, run), told):
            return replace(attempt, run=run), told
    raise AccountingError(
        f"shard {attempt.shard.key}: was begun {RUNS_OF_A_ROOT} times under fence {attempt.fence}"
    )


def _load(attempt: Attempt) -> Encoder:
    """The model. Raises ModelError where the weights here are not the pipeline's."""
    found = fingerprint(attempt.settings)
    if found != attempt.fingerprint:
        raise ModelError(
            f"model {attempt.settings.model.id!r} in this container is not the one that the pipeline has: its "
            f"fingerprint is {found}, not {attempt.fingerprint}; put the same files and the same version of "
            "batch-assets into it"
        )
    return load_encoder(attempt.settings, device="auto")


def _give_up(storage: Storage, attempt: Attempt, mark: bytes, error: BaseException) -> None:
    """Leave the reason for a run without a commit; where the root is another one, nothing, and raise that instead."""
    try:
        if is_same_root(storage, attempt.deployment):
            _leave_word(storage, attempt, error)
            return
        _withdraw(storage, attempt, mark)
    except Exception as failed:
        logger.warning("shard %s: the end could not be noted: %s", attempt.shard.key, failed)
        return
    if isinstance(error, Exception):
        raise root_removed(storage, attempt.shard.key) from error


def _discard(storage: Storage, attempt: Attempt, mark: bytes) -> None:
    """Delete what this worker has written for nothing, since another's commit stands.

    Nobody else writes files of these names as long as the number that is in them is this worker's.
    """
    try:
        taken = storage.read_versioned(paths.worker_run(attempt.shard.key, attempt.fence, attempt.run))
        if taken is not None and taken[0] == mark:
            storage.delete(_written(attempt))
    except StorageError as error:
        logger.warning("shard %s: files that nobody needs stay: %s", attempt.shard.key, error)


def _withdraw(storage: Storage, attempt: Attempt, mark: bytes) -> None:
    """Delete what this worker has written here since the root was removed.

    Shards without a plan would keep a new pipeline from taking the place.
    """
    number = paths.worker_run(attempt.shard.key, attempt.fence, attempt.run)
    taken = storage.read_versioned(number)
    # Whoever writes files of these names takes the number first. In a root that was made anew that may be another
    # worker; where it is nobody, what took it was removed with the root, and the files are this worker's.
    if taken is not None and taken[0] != mark:
        return
    storage.delete([*_written(attempt), number] if taken is not None else _written(attempt))


def _written(attempt: Attempt) -> list[str]:
    return [
        make(attempt.shard.key, attempt.fence, attempt.run) for make in (paths.embeddings, paths.failures)
    ]


def _leave_word(storage: Storage, attempt: Attempt, error: BaseException) -> None:
    """Say why, for whoever looks for the shard: the container's log may be gone by then."""
    told = {
        "job": attempt.job,
        "error": type(error).__name__,
        "message": str(error)[:4000],
        "traceback": "".join(traceback.format_exception(error))[-8000:],
    }
    storage.write(
        paths.worker_error(attempt.shard.key, attempt.fence, attempt.run),
        orjson.dumps(told, option=orjson.OPT_INDENT_2),
    )
