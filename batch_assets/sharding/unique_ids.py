"""What `ids: unique` refuses when a source is planned: records that share an id, and such without one.

How ids are counted is in `sources/record_ids.py`; what is seen only when all shards come together, in `merge/ids.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from batch_assets.errors import ConfigurationError
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.plan import PlanSummary, Shard
from batch_assets.sharding.reading import record_rules
from batch_assets.sources.base import Records
from batch_assets.sources.id_examples import MOST_SUSPECTS, IdExamples
from batch_assets.sources.record_ids import IdCounter
from batch_assets.sources.registry import Sources


def refuse_ids(
    settings: PipelineSettings, sources: Sources, plan: PlanSummary, shards: Sequence[Shard], ids: IdCounter
) -> None:
    """Raise ConfigurationError, with examples, where valid records share an id or have none.

    The counted records have rejected ones among them, which may be all there is to it: so the records
    are read until there are some examples.
    """
    examples = IdExamples(ids.duplicates(MOST_SUSPECTS))

    def read(shard: Shard) -> Iterable[Records]:
        rules = replace(record_rules(settings, shard, plan, contents=False), columns=())
        return sources.read(shard.segments, rules)

    look_at_shards(read, shards, examples)
    raise_for(examples, ids)


def look_at_shards(
    read: Callable[[Shard], Iterable[Records]], shards: Sequence[Shard], examples: IdExamples
) -> None:
    """Show the shards' valid records to `examples`, until it is enough."""
    for shard in shards:
        for records in read(shard):
            named = zip(records.ordinals, records.record_ids, strict=True)
            ids = [None if one == f"{shard.key}:{number}" else one for number, one in named]
            if examples.look(ids, records.source_files, records.source_rows):
                return


def raise_for(examples: IdExamples, ids: IdCounter) -> None:
    """Raise ConfigurationError where there are examples."""
    if examples:
        raise ConfigurationError(
            f"source.ids: unique, but {' and '.join(ids.count().describe())}: {examples}; mend the source, or "
            "leave `ids` out, and they are embedded as they are"
        )
