"""One shard embedded and committed by a worker that reaches the output root, and no ledger.

What makes it harmless to run twice, also at the same time: a worker takes a number of its own before
it writes, so that no two write files of one name, and puts the marker only over the one it has
seen. The numbers of two output roots that lay at one place, one after the other, never meet. Which
shard it is to be is in `assignment.py`.
"""

import hashlib
import os
import secrets
import time
import traceback
from dataclasses import replace

import orjson

from batch_assets import paths
from batch_assets.embeddings.accounting import account_shard
from batch_assets.embeddings.facts import JobFacts
from batch_assets.embeddings.marker import ShardMarker, commit_marker, standing_marker
from batch_assets.embeddings.schema import EMBED
from batch_assets.encoders.fingerprint import fingerprint
from batch_assets.encoders.registry import load_encoder
from batch_assets.errors import AccountingError, ConfigurationError, ModelError, SourceError
from batch_assets.plain_text import plain_logger
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.plan_files import read_shards, read_summary
from batch_assets.sharding.reading import read_shard
from batch_assets.storage import Storage, open_storage
from batch_assets.storage.owner import parse_owner
from batch_assets.worker.assignment import Assignment, WorkerManifest
from batch_assets.worker.fetching import Fetching
from batch_assets.worker.pipeline import embed
from batch_assets.worker.shard_files import Authority, write_shard

MOST_RUNS = 1000
logger = plain_logger(__name__)


def carry_out(manifest: WorkerManifest, assignment: Assignment, job: str) -> ShardMarker:
    """Bring a shard to its commit; the marker that stands in the end, this worker's or another's.

    `job` is the worker's name at its service. Raises ModelError where the weights here are not
    those that the pipeline has, ConfigurationError where the output root is another one by now,
    SourceError, StorageError, AccountingError.
    """
    started = time.perf_counter()
    settings = manifest.pipeline
    storage = open_storage(settings.output.root)
    _check_root(storage, manifest, assignment)
    found, version = standing_marker(storage, assignment.shard)
    if found is not None and _counts(storage, found, manifest, assignment):
        logger.info("shard %s is committed already, under fence %d", assignment.shard, found.fence)
        return found
    generation = paths.shard_generation(assignment.shard)
    shards = read_shards(storage, generation, [assignment.shard])
    if not shards:
        raise SourceError(f"shard {assignment.shard} is in no plan under {storage.uri}")
    run, mark = _take_run(storage, manifest, assignment, job)
    try:
        _check_weights(settings, manifest)
        marker = _write(manifest, assignment, settings, storage, shards[0], job, run, started, found)
        _check_root(storage, manifest, assignment)
    except BaseException as error:
        _give_up(storage, manifest, assignment, run, mark, job, error)
        raise
    if not commit_marker(storage, marker, version):
        return _yield(storage, manifest, assignment, marker)
    logger.info("shard %s: %s", marker.shard, ", ".join(f"{n} {what}" for what, n in marker.counts.items()))
    return marker


def _counts(storage: Storage, marker: ShardMarker, manifest: WorkerManifest, assignment: Assignment) -> bool:
    """Whether the shard needs no computing: committed under this fingerprint and not ordered anew since, or later."""
    if marker.fence > assignment.fence:
        return True  # whoever has the later claim knows better what is asked for
    if marker.fingerprint != manifest.fingerprint or marker.fence <= assignment.outdated_fence:
        return False
    try:
        account_shard(storage, marker.counts["planned"], marker)
    except (AccountingError, FileNotFoundError) as error:
        logger.warning("shard %s: what is committed is damaged (%s); embedded again", marker.shard, error)
        return False
    return True


def _take_run(
    storage: Storage, manifest: WorkerManifest, assignment: Assignment, job: str
) -> tuple[int, bytes]:
    """A number that no other worker has under this fence, and what says whose it is."""
    # Where ledger and root are gone, fences begin anew: a late worker would write over what the new root has.
    begin = _first_run(manifest.deployment)
    # Nobody else's is like it: where the answer to the write is lost, it tells whose the number is.
    mark = {"job": job, "host": os.uname().nodename, "pid": os.getpid(), "mark": secrets.token_hex(8)}
    told = orjson.dumps(mark) + b"\n"
    for run in range(begin, begin + MOST_RUNS):
        if storage.create(paths.worker_run(assignment.shard, assignment.fence, run), told):
            return run, told
    raise AccountingError(
        f"shard {assignment.shard}: was begun {MOST_RUNS} times under fence {assignment.fence}"
    )


def _first_run(deployment: str | None) -> int:
    """Where the numbers of an output root begin; those of one without an id are at 0."""
    if deployment is None:
        return 0
    return (1 + int(hashlib.sha256(deployment.encode()).hexdigest()[:6], 16)) * MOST_RUNS


def _give_up(
    storage: Storage,
    manifest: WorkerManifest,
    assignment: Assignment,
    run: int,
    mark: bytes,
    job: str,
    error: BaseException,
) -> None:
    """Leave the reason for a run without a commit; where the root is another one, nothing, and raise that instead."""
    try:
        if _is_same_root(storage, manifest):
            _leave_word(storage, assignment, run, job, error)
            return
        _withdraw(storage, assignment, run, mark)
    except Exception as failed:
        logger.warning("shard %s: the end could not be noted: %s", assignment.shard, failed)
        return
    if isinstance(error, Exception):
        raise _removed(storage, assignment) from error


def _withdraw(storage: Storage, assignment: Assignment, run: int, mark: bytes) -> None:
    """Delete what this worker has written here since the root was removed.

    Shards without a plan would keep a new pipeline from taking the place.
    """
    number = paths.worker_run(assignment.shard, assignment.fence, run)
    taken = storage.read_versioned(number)
    # Whoever writes files of these names takes the number first. In a root that was made anew that may be another
    # worker; where it is nobody, what took it was removed with the root, and the files are this worker's.
    if taken is not None and taken[0] != mark:
        return
    files = (make(assignment.shard, assignment.fence, run) for make in (paths.embeddings, paths.failures))
    storage.delete([*files, number] if taken is not None else [*files])


def _check_weights(settings: PipelineSettings, manifest: WorkerManifest) -> None:
    found = fingerprint(settings)
    if found != manifest.fingerprint:
        raise ModelError(
            f"model {settings.model.id!r} in this container is not the one that the pipeline has: its fingerprint is "
            f"{found}, not {manifest.fingerprint}; put the same files and the same version of batch-assets into it"
        )


def _check_root(storage: Storage, manifest: WorkerManifest, assignment: Assignment) -> None:
    """Refuse a root that was removed meanwhile, and perhaps made anew: its shards are others."""
    if not _is_same_root(storage, manifest):
        raise _removed(storage, assignment)


def _removed(storage: Storage, assignment: Assignment) -> ConfigurationError:
    return ConfigurationError(
        f"shard {assignment.shard} is not committed: the output root {storage.uri} was removed since the job was "
        "submitted; run the pipeline again"
    )


def _is_same_root(storage: Storage, manifest: WorkerManifest) -> bool:
    if manifest.deployment is None:
        return True
    found = storage.read_versioned(paths.PIPELINE)
    owner = parse_owner(found[0]) if found is not None else None
    return owner is not None and owner.get("deployment") == manifest.deployment


def _write(
    manifest: WorkerManifest,
    assignment: Assignment,
    settings: PipelineSettings,
    storage: Storage,
    shard: Shard,
    job: str,
    run: int,
    started: float,
    found: ShardMarker | None,
) -> ShardMarker:
    plan = read_summary(storage, paths.shard_generation(shard.key))
    facts = JobFacts(model=settings.model.id)
    encoder = load_encoder(settings, device="auto")
    facts.dtype, facts.device, facts.dimensions = encoder.dtype, encoder.device, encoder.dimensions
    facts.timings["load_seconds"] = time.perf_counter() - started
    tokens = getattr(settings.executor, "batch_tokens", "auto")
    outcomes = embed(
        read_shard(settings, shard, plan, storage),
        encoder,
        batch_tokens=None if tokens == "auto" else int(tokens),
        batch_records=getattr(settings.executor, "batch_records", None),
        fetching=Fetching.of(settings),
        timings=facts.timings,
    )
    authority = Authority(
        fence=assignment.fence,
        attempt=assignment.attempt,
        fingerprint=manifest.fingerprint,
        executor=manifest.executor,
        job=job,
        task=EMBED,
        earlier_usd=found.spent_usd if found is not None else 0.0,
        run=run,
    )
    marker = write_shard(storage, settings, plan.columns, shard, outcomes, facts, authority)
    if manifest.usd_per_hour is not None:
        marker = replace(marker, cost_usd=(time.perf_counter() - started) / 3600 * manifest.usd_per_hour)
    return marker


def _yield(
    storage: Storage, manifest: WorkerManifest, assignment: Assignment, own: ShardMarker
) -> ShardMarker:
    """Another has committed meanwhile: what it has done stands, and the own files go."""
    found, _ = standing_marker(storage, assignment.shard)
    if found is not None and found.files == own.files:
        return found  # the own write, whose answer was lost
    storage.delete([file.path for file in own.files])
    if found is None or not _counts(storage, found, manifest, assignment):
        raise AccountingError(
            f"shard {assignment.shard}: its marker changed while it was embedded; it is tried again"
        )
    logger.info("shard %s was committed by %s meanwhile", assignment.shard, found.job)
    return found


def _leave_word(storage: Storage, assignment: Assignment, run: int, job: str, error: BaseException) -> None:
    """Say why, for whoever looks for the shard: the container's log may be gone by then."""
    told = {
        "job": job,
        "error": type(error).__name__,
        "message": str(error)[:4000],
        "traceback": "".join(traceback.format_exception(error))[-8000:],
    }
    storage.write(
        paths.worker_error(assignment.shard, assignment.fence, run),
        orjson.dumps(told, option=orjson.OPT_INDENT_2),
    )
