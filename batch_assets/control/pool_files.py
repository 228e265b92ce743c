"""Which jobs share a submission: `jobs/pools/<name>.json`, written before its call, for whoever has no ledger.

What each of them asks for is in its own description.
"""

from collections.abc import Iterator, Sequence

import orjson

from batch_assets import paths
from batch_assets.plain_text import plain_logger
from batch_assets.storage import Storage

Member = tuple[str, int]
"""A job: its shard and its fence."""

logger = plain_logger(__name__)


def write_pool(storage: Storage, name: str, members: Sequence[Member]) -> None:
    """Say which jobs the submission of that name carries, in its order."""
    jobs = [{"shard": shard, "fence": fence} for shard, fence in members]
    storage.write(paths.pool_description(name), orjson.dumps({"name": name, "jobs": jobs}) + b"\n")


def read_pool(storage: Storage, name: str) -> list[Member]:
    """The jobs that the submission carries; none where nothing says so, or where what says so cannot be read."""
    found = storage.read_versioned(paths.pool_description(name))
    if found is None:
        return []
    try:
        return [(str(job["shard"]), int(job["fence"])) for job in orjson.loads(found[0])["jobs"]]
    except (ValueError, KeyError, TypeError) as error:
        logger.warning(
            "%s/%s is damaged (%s), so it is not known which jobs share submission %s; restore it from a copy",
            storage.uri, paths.pool_description(name), error, name,
        )  # fmt: skip
        return []


def pool_names(storage: Storage) -> Iterator[str]:
    """The submissions that carry several jobs, by name."""
    for info in storage.list("jobs/pools"):
        # Without a staging area, their request and result files lie here too, deeper down.
        name = info.path.rsplit("/", 1)[-1].removesuffix(".json")
        if info.path == paths.pool_description(name):
            yield name
