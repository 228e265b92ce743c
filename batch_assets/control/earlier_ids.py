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
from batch_assets.sharding.unique_ids import look_at, raise_for
from batch_assets.sources.id_examples import MOST_SUSPECTS, IdExamples


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
        for shard in new.shards:
            records = read_shard(pipeline.settings, shard, new.summary, pipeline.storage, contents=False)
            if look_at(shard, records, examples):
                break
    raise_for(examples, new.counter)


def _embedded(pipeline: Pipeline, superseded: frozenset[str]) -> list[tuple[str, str]]:
    """(key, embeddings file) of each shard that is collected and stays."""
    found: list[tuple[str, str]] = []
    for row in pipeline.ledger.shards(pipeline.name):
        if row.state is State.COLLECTED and row.key not in superseded:
            marker = read_marker(pipeline.storage, row.key)
            if marker is not None:
                found.append((row.key, marker[0].embeddings.path))
    return found
