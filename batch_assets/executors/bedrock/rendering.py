"""A job's request files and its description, from a shard's records.

How a request is written is in `requests.py`; when a job is rendered, in `control/`.
"""

import uuid
from typing import TYPE_CHECKING

from batch_assets import paths
from batch_assets.executors.bedrock.requests import TOO_LONG, RequestFiles, render
from batch_assets.executors.deferred import Order
from batch_assets.executors.jobs import JobDescription, JobKind, digest_of, runs_of
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.reading import read_shard

if TYPE_CHECKING:
    from batch_assets.executors.bedrock.executor import BedrockExecutor

SHARD_NUMBERS, ORDINALS = 10**5, 10**6
GENERATION_STEP = 50_021


def render_job(executor: "BedrockExecutor", shard: Shard, order: Order) -> JobDescription:
    """Upload the requests of the records that `order` names and say what they are.

    Fewer than the service's minimum become an `on_demand` job, unless remainders are pooled.
    Raises SourceError, StorageError, ConfigurationError.
    """
    # Two deployments may share a staging area, a pipeline's name and a root's path: no file of one is the other's.
    own = uuid.uuid4().hex[:8]
    folder = f"{paths.job_folder(shard.key, order.fence)}/requests-{own}"
    out = RequestFiles(executor.staging, folder, f"{shard.key}-{order.fence}-{own}", executor.quotas)
    records = read_shard(executor.settings, shard)
    first_id = _first_id(executor, shard)
    rendered = render(records, executor.family, out, order.ordinals, order.narrowed, first_id)
    kind: JobKind = "batch"
    if not rendered.records or (
        rendered.records < executor.quotas.min_records and executor.options.remainder == "on_demand"
    ):
        kind = "on_demand"
    bound = executor.cost(
        rendered.input_token_bound, rendered.output_token_bound, on_demand=kind == "on_demand"
    )
    return JobDescription(
        failing_since=order.failing_since,
        pipeline=executor.settings.name,
        shard=shard.key,
        fence=order.fence,
        attempt=order.attempt,
        kind=kind,
        fingerprint=executor.fingerprint(),
        digest=digest_of(rendered.files),
        staging=executor.staging.uri,
        files=rendered.files,
        records=rendered.records,
        bytes=rendered.bytes,
        bound_usd=bound or 0.0,
        ordinals=runs_of(rendered.ordinals),
        narrowed={int(ordinal): times for ordinal, times in (order.narrowed or {}).items()},
        refused=[(ordinal, TOO_LONG, message) for ordinal, message in rendered.too_long],
        earlier=tuple(order.earlier),
        keep_fence=order.keep_fence,
        first_id=first_id,
    )


def _first_id(executor: "BedrockExecutor", shard: Shard) -> int:
    """The record id of the shard's first record: 0, unless its job may be pooled with other shards'.

    Record ids should be unique in a job. Eleven digits hold a shard's number and an ordinal below
    a million; results are told apart by their file as well.
    """
    if executor.options.remainder != "pool":
        return 0
    generation, ordinal = paths.shard_generation(shard.key), paths.shard_ordinal(shard.key)
    return ((generation - 1) * GENERATION_STEP + ordinal) % SHARD_NUMBERS * ORDINALS
