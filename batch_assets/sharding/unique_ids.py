"""What `ids: unique` refuses when a source is planned: records that share an id, and such without one.

How ids are counted is in `sources/record_ids.py`; what is seen only when all shards come together, in `merge/ids.py`.
"""

from collections.abc import Iterable, Sequence
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
    for shard in shards:
        rules = replace(record_rules(settings, shard, plan, contents=False), columns=())
        if look_at(shard, sources.read(shard.segments, rules), examples):
            break
    raise_for(examples, ids)


def look_at(shard: Shard, batches: Iterable[Records], examples: IdExamples) -> bool:
    """Show a shard's valid records to `examples`, until it is enough (True)."""
    for records in batches:
        named = zip(records.ordinals, records.record_ids, strict=True)
        ids = [None if one == f"{shard.key}:{number}" else one for number, one in named]
        if examples.look(ids, records.source_files, records.source_rows):
            return True
    return False


def raise_for(examples: IdExamples, ids: IdCounter) -> None:
    """Raise ConfigurationError where there are examples."""
    if examples:
        raise ConfigurationError(
            f"source.ids: unique, but {' and '.join(ids.count().describe())}: {examples}; mend the source, or "
            "leave `ids` out, and they are embedded as they are"
        )
