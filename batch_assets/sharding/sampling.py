"""The first records of a source, for a rehearsal: read as a pipeline reads them, planned in a scratch folder."""

from collections.abc import Iterator

from batch_assets.errors import SourceError
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.chained import plan_chained
from batch_assets.sharding.planner import plan_generation
from batch_assets.sharding.reading import read_shard, read_unprepared
from batch_assets.sharding.upstream import current_commit, upstream_root
from batch_assets.sources.base import Records
from batch_assets.storage import Storage


def first_records(settings: PipelineSettings, scratch: Storage, most: int) -> Iterator[Records]:
    """About the first `most` records; of another pipeline's shards, of those that are committed.

    Raises SourceError, ConfigurationError.
    """
    if settings.source.pipeline is None:
        limited = settings.model_copy(update={"source": settings.source.model_copy(update={"limit": most})})
        planned = plan_generation(limited, scratch)
        for shard in planned.shards:
            yield from read_shard(limited, shard, planned.summary, scratch)
        return
    left = most
    for result in plan_chained(settings, scratch):
        upstream = upstream_root(result.summary.base_uri)
        for shard in result.shards:
            try:
                marker = current_commit(upstream, shard.key)
            except SourceError:
                continue
            for records in read_unprepared(settings, shard, result.summary, scratch, marker):
                yield records
                left -= len(records) + len(records.rejections)
                if left <= 0:
                    return
