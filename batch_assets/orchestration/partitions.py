"""Shards as Dagster partitions: one dynamic definition per pipeline.

Keys are added in bulk by `shard_plan`, sorted, and never reused; ranges follow that order.
"""

from collections.abc import Iterable, Sequence

import dagster as dg
from sqlalchemy.exc import IntegrityError

from batch_assets.sharding.plan import group_consecutive

SHARDS_PER_RUN = 100
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
KEYS_PER_CALL = 10_000


def shard_partitions(pipeline: str) -> dg.DynamicPartitionsDefinition:
    """The partitions of a pipeline's three partitioned assets."""
    return dg.DynamicPartitionsDefinition(name=f"{pipeline}_shards")


def add_partitions(instance: dg.DagsterInstance, pipeline: str, keys: Sequence[str]) -> None:
    """Make shards known to Dagster; those it knows already are left as they are."""
    name = f"{pipeline}_shards"
    for start in range(0, len(keys), KEYS_PER_CALL):
        some = list(keys[start : start + KEYS_PER_CALL])
        try:
            instance.add_dynamic_partitions(name, some)
        except IntegrityError:
            # Dagster looks and then inserts: another run of the same plan was in between. All or none is there.
            instance.add_dynamic_partitions(name, some)


def range_tags(first: str, last: str) -> dict[str, str]:
    """Run tags that select the partitions from `first` to `last`, both included."""
    return {RANGE_START: first, RANGE_END: last}


def shard_ranges(all_keys: Sequence[str], wanted: Iterable[str]) -> list[tuple[str, str]]:
    """The fewest runs of at most 100 shards that cover `wanted` and nothing else."""
    groups = group_consecutive(all_keys, wanted, SHARDS_PER_RUN)
    return [(group[0], group[-1]) for group in groups]
