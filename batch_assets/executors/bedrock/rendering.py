"""A job's request files and its description, from a shard's records.

How a request is written is in `requests.py`; when a job is rendered, in `control/`.
"""

from batch_assets import paths
from batch_assets.executors.aws.requests import own_digits
from batch_assets.executors.bedrock.pipeline import BedrockPipeline
from batch_assets.executors.bedrock.places import requests_folder
from batch_assets.executors.bedrock.quotas import Quotas
from batch_assets.executors.bedrock.requests import RequestFiles, render
from batch_assets.executors.jobs import JobDescription, JobKind
from batch_assets.executors.service_jobs import Order
from batch_assets.sharding.plan import Shard
from batch_assets.sharding.reading import read_shard

SHARD_NUMBERS, ORDINALS = 10**5, 10**6
GENERATION_STEP = 50_021


def render_job(pipeline: BedrockPipeline, quotas: Quotas, shard: Shard, order: Order) -> JobDescription:
    """Upload the requests of the records that `order` names and say what they are.

    Fewer than the service's minimum become an `on_demand` job, unless remainders are pooled.
    Raises SourceError, StorageError, ConfigurationError.
    """
    own = own_digits()
    folder = requests_folder(shard.key, order.fence, own)
    out = RequestFiles(pipeline.staging, folder, f"{shard.key}-{order.fence}-{own}", quotas)
    records = read_shard(pipeline.settings, shard)
    first_id = _first_id(pipeline, shard)
    rendered = render(records, pipeline.family, out, order.ordinals, order.narrowed, first_id)
    kind: JobKind = "batch"
    if not rendered.records or (
        rendered.records < quotas.min_records and pipeline.options.remainder == "on_demand"
    ):
        kind = "on_demand"
    bound = pipeline.cost(
        rendered.input_token_bound, rendered.output_token_bound, on_demand=kind == "on_demand"
    )
    return pipeline.description_of(
        shard,
        order,
        kind=kind,
        files=rendered.files,
        ordinals=rendered.ordinals,
        too_long=rendered.too_long,
        bound_usd=bound or 0.0,
        first_id=first_id,
    )


def _first_id(pipeline: BedrockPipeline, shard: Shard) -> int:
    """The record id of the shard's first record: 0, unless its job may be pooled with other shards'.

    Record ids should be unique in a job. Eleven digits hold a shard's number and an ordinal below
    a million; results are told apart by their file as well.
    """
    if pipeline.options.remainder != "pool":
        return 0
    generation, ordinal = paths.shard_generation(shard.key), paths.shard_ordinal(shard.key)
    return ((generation - 1) * GENERATION_STEP + ordinal) % SHARD_NUMBERS * ORDINALS
