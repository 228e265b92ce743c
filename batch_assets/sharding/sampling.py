"""The first records of a source, for a rehearsal: read as a pipeline reads them, planned in a scratch folder."""

from collections.abc import Iterator

from batch_assets import paths
from batch_assets.errors import SourceError
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.chained import plan_chained
from batch_assets.sharding.plan import PlanResult
from batch_assets.sharding.planner import plan_generation
from batch_assets.sharding.reading import read_shard, read_unprepared
from batch_assets.sharding.requested import plan_windows
from batch_assets.sharding.upstream import current_commit, upstream_root
from batch_assets.sources.base import Records
from batch_assets.storage import FileInfo, Storage, open_storage


def first_records(settings: PipelineSettings, scratch: Storage, most: int) -> Iterator[Records]:
    """About the first `most` records; of another pipeline's shards, of those that are committed.

    Raises SourceError, ConfigurationError.
    """
    if settings.source.pipeline is None:
        limited = settings.model_copy(update={"source": settings.source.model_copy(update={"limit": most})})
        asked = settings.source.requests is not None
        planned = _plan_sealed(limited, scratch) if asked else plan_generation(limited, scratch)
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


def _plan_sealed(settings: PipelineSettings, scratch: Storage) -> PlanResult:
    """The windows that are sealed under the output root, oldest first."""
    folder = open_storage(settings.output.root)
    files = [
        FileInfo(path, info.size, info.version)
        for info in sorted(folder.list(paths.WINDOWS), key=lambda info: info.path)
        if paths.window_of(path := info.path.removeprefix(f"{paths.WINDOWS}/")) is not None
    ]
    if not files:
        raise SourceError(
            f"{folder.uri}/{paths.WINDOWS}: no window of requests is sealed yet; post some to `batch-assets serve`, or "
            "rehearse a copy of this YAML whose source.uri has records like those that will come"
        )
    return plan_windows(settings, scratch, files, 0)
