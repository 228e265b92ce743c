"""From scattered shards to runs: few, of at most a hundred shards, and of no shard that was not asked for."""

from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import dagster as dg
from hypothesis import given
from hypothesis import strategies as st

from batch_assets.orchestration.partitions import SHARDS_PER_RUN, add_partitions, shard_ranges

KEYS = [f"g0001-{number:05d}" for number in range(300)]


@given(st.sets(st.integers(0, len(KEYS) - 1)))
def test_ranges_cover_what_is_wanted_and_nothing_else(wanted: set[int]) -> None:
    ranges = [
        (KEYS.index(first), KEYS.index(last)) for first, last in shard_ranges(KEYS, [KEYS[n] for n in wanted])
    ]
    covered = [number for first, last in ranges for number in range(first, last + 1)]
    assert covered == sorted(wanted)
    assert all(last - first < SHARDS_PER_RUN for first, last in ranges)
    # No fewer runs would do: each gap begins one, and so does each hundred shards without a gap.
    numbered = enumerate(sorted(wanted))
    stretches = [len(list(group)) for _, group in groupby(numbered, lambda pair: pair[1] - pair[0])]
    assert len(ranges) == sum(-(-length // SHARDS_PER_RUN) for length in stretches)


def test_partitions_are_added_once_and_keep_their_order() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        add_partitions(instance, "texts", KEYS[:200])
        add_partitions(instance, "texts", KEYS)
        assert list(instance.get_dynamic_partitions("texts_shards")) == KEYS


def test_two_processes_may_add_the_same_partitions_at_once(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        known = instance.get_dynamic_partitions("texts_shards")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: add_partitions(instance, "texts", KEYS), range(8)))
        assert known == [] and list(instance.get_dynamic_partitions("texts_shards")) == KEYS
