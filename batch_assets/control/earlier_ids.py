"""Whether new records have ids of embedded ones, where ids are to be unique: better known before they are paid for.

Shards that are planned and not embedded yet are not seen here; the merge sees them (`merge/ids.py`).
"""

from batch_assets.control.pipeline import Pipeline
from batch_assets.embeddings.marker import read_marker
from batch_assets.ledger.states import State
from batch_assets.merge.ids import add_files, look_at_files
from batch_assets.settings.source import UNIQUE
from batch_assets.sharding.plan import PlanResult
from batch_assets.sharding.reading import read_shard
from batch_assets.sharding.unique_ids import look_at_shards, raise_for
from batch_assets.sources.id_examples import MOST_SUSPECTS, IdExamples
from batch_assets.storage.threads import map_in_order, threads_for


def refuse_earlier_ids(pipeline: Pipeline, new: PlanResult) -> None:
    """Raise ConfigurationError, with examples, where the records of `new` and the embedded ones are not unique."""
    if pipeline.settings.source.ids != UNIQUE or new.counter is None or not new.shards:
        return
    files = _embedded(pipeline, frozenset(new.summary.superseded))
    add_files(new.counter, pipeline.storage, files)
    if new.counter.count().unique:
        return
    examples = IdExamples(new.counter.duplicates(MOST_SUSPECTS))
    if not look_at_files(pipeline.storage, files, examples):
        look_at_shards(
            lambda shard: read_shard(pipeline.settings, shard, new.summary, pipeline.storage, contents=False),
            new.shards,
            examples,
        )
    raise_for(examples, new.counter)


def _embedded(pipeline: Pipeline, superseded: frozenset[str]) -> list[tuple[str, str]]:
    """(key, embeddings file) of each shard that is collected and stays."""
    rows = pipeline.ledger.shards(pipeline.name, states=[State.COLLECTED])
    keys = [row.key for row in rows if row.key not in superseded]
    storage = pipeline.storage
    markers = map_in_order(lambda key: read_marker(storage, key), keys, threads_for(storage))
    return [
        (key, marker[0].embeddings.path)
        for key, marker in zip(keys, markers, strict=True)
        if marker is not None
    ]
