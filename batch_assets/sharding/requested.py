"""Planning a pipeline of requests: sealed windows become shards, several small ones together.

Which windows are to be planned is told by the database of requests, so that nothing is listed and no earlier plan is
read: planning costs the same after a year as on the first day.
"""

from collections.abc import Sequence

from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.known import KnownSource
from batch_assets.sharding.plan import PlanResult
from batch_assets.sharding.plan_files import read_summary
from batch_assets.sharding.planner import source_uri
from batch_assets.sharding.source_walk import SourceWalk, walk_over
from batch_assets.sources.hive import HivePartitions
from batch_assets.sources.listing import Listing, Location
from batch_assets.sources.spool_files import Spools
from batch_assets.storage import FileInfo, Storage, open_storage

FORMAT = "jsonl"


def plan_windows(
    settings: PipelineSettings,
    root: Storage,
    windows: Sequence[FileInfo],
    newest: int,
    *,
    min_records: int = 0,
) -> PlanResult:
    """The generation behind `newest`, of these windows; those that cannot be read are left out, and named."""
    uri = source_uri(settings)
    location = Location(open_storage(uri), None)
    known = KnownSource(location.storage.uri, generation=newest)
    if newest:
        known.columns = read_summary(root, newest).source_columns
    listing = Listing(location, FORMAT, windows, [])
    walk = walk_over(
        lambda passed_over: SourceWalk(
            settings, Spools(root), listing, known, HivePartitions({}),
            min_records=min_records, on_progress=None, passed_over=passed_over,
        )
    )  # fmt: skip
    shards = walk.cutter.finish()
    return PlanResult(
        walk.summary(shards, uri), shards, merged=walk.columns.merged(), unreadable=walk.unreadable
    )
