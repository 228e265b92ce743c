"""Pipelines at SageMaker, as `sites.py` has them at Bedrock."""

from pathlib import Path
from typing import Any

from batch_assets.control.loop import take_turn
from batch_assets.control.preparation import prepare_shards, queue_shards
from batch_assets.control.shard_result import Result, ShardResult
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets_tests.command import some_records, write_records
from batch_assets_tests.rehearsed import DIMENSIONS, Rehearsal
from batch_assets_tests.sites import PER_SHARD, Site
from batch_assets_tests.waiting import wait_until

INSTANCE = "ml.g5.xlarge"
USD_PER_HOUR = 3600.0
BREAKS = "BREAKS-OBJECT"


def make_transform_site(
    rehearsal: Rehearsal, folder: Path, shards: int = 2, breaking: tuple[int, ...] = (), **fields: Any
) -> Site:
    """A pipeline of so many shards, of whose records those `breaking` make their objects fail."""
    rehearsal.change(transform={"width": DIMENSIONS})
    records = some_records(shards * PER_SHARD)
    for number in breaking:
        records[number]["text"] = f"{BREAKS} {number}"
    write_records(folder / "in.jsonl", records)
    executor = {
        "type": "sagemaker",
        "model_name": "my-model",
        "instance_type": INSTANCE,
        "staging": f"s3://{rehearsal.bucket}/staging/",
        "poll_seconds": 0.01,
        "usd_per_hour": USD_PER_HOUR,
        **fields.pop("executor", {}),
    }
    values = {
        "source": {"uri": f"{folder}/in.jsonl", "id_column": "id"},
        "shards": {"records": PER_SHARD},
        "output": {"root": f"{folder}/out"},
        **fields,
        "executor": {name: value for name, value in executor.items() if value is not None},
    }
    return Site(rehearsal, folder, parse_pipeline(values, "texts", "a test"))


def bring_on_first_shard(site: Site) -> ShardResult:
    """Nothing but the first shard is started, until its job is collected."""
    pipeline = site.plan()
    first = [site.rows()[0].key]
    list(prepare_shards(pipeline, first))
    queue_shards(pipeline, first)
    found: list[ShardResult] = []

    def collected() -> bool:
        take_turn([pipeline])
        found.extend(result for result in site.collect(pipeline) if result.result is not Result.NOT_READY)
        return bool(found)

    wait_until(collected, site.states)
    return found[0]


def billed(site: Site) -> float:
    """USD for instances by the service's own books."""
    return sum(job.seconds for job in site.rehearsal.server.books.transforms.values()) * USD_PER_HOUR / 3600
