"""Where every file of a pipeline lies: the only place that knows.

All paths are relative to the pipeline's output root and use `/`. What is in the files belongs
to the modules that write them.
"""

PIPELINE = "pipeline.json"
CURRENT = "merged/CURRENT"
# Where `output.single_file` says so: copies for readers of one file.
SINGLE_FILE = "embeddings.parquet"
SINGLE_METADATA = "metadata.json"


def shard_key(generation: int, ordinal: int) -> str:
    """Key of a shard, which is also its partition key: g0001-00042."""
    return f"g{generation:04d}-{ordinal:05d}"


def shard_generation(shard: str) -> int:
    """The generation in a shard's key."""
    return int(shard[1:].split("-", 1)[0])


def shard_ordinal(shard: str) -> int:
    """The ordinal in a shard's key."""
    return int(shard.rsplit("-", 1)[1])


def plan(generation: int) -> str:
    return f"plan/g{generation:04d}.parquet"


def plan_summary(generation: int) -> str:
    return f"plan/g{generation:04d}.json"


def spool(digest: str) -> str:
    """Normalized copy of a source file that allows no random access."""
    return f"spool/{digest}.parquet"


def shard_folder(shard: str) -> str:
    return f"shards/{shard}"


def input_manifest(shard: str) -> str:
    return f"shards/{shard}/input.json"


def shard_marker(shard: str) -> str:
    """The commit marker: the shard is what this file says, and nothing else is."""
    return f"shards/{shard}/shard.json"


def embeddings(shard: str, fence: int, run: int = 0) -> str:
    """`run` tells apart those who write under one fence: a worker that its service has started again."""
    return f"shards/{shard}/embeddings-{_numbered(fence, run)}.parquet"


def failures(shard: str, fence: int, run: int = 0) -> str:
    return f"shards/{shard}/failures-{_numbered(fence, run)}.parquet"


def _numbered(fence: int, run: int) -> str:
    return f"{fence}-{run}" if run else str(fence)


def job_folder(shard: str, fence: int) -> str:
    """Of one job: its request files (which may lie on the staging area instead) and its description."""
    return f"jobs/{shard}/{fence}"


def job_description(shard: str, fence: int) -> str:
    return f"jobs/{shard}/{fence}/job.json"


def pool_description(name: str) -> str:
    """Which jobs share one submission."""
    return f"jobs/pools/{name}.json"


def attempt_rows(shard: str, fence: int) -> str:
    """What a job has settled, of a shard that needs another one."""
    return f"shards/{shard}/attempts/{fence}/rows.parquet"


def attempt_marker(shard: str, fence: int) -> str:
    """Written last: the attempt's rows count, and so does its cost."""
    return f"shards/{shard}/attempts/{fence}/attempt.json"


def worker_manifest(name: str) -> str:
    """What the workers of one submission are to do."""
    return f"jobs/manifests/{name}.json"


def worker_run(shard: str, fence: int, run: int) -> str:
    """Taken by a worker before it writes: no two write files of one name."""
    return f"shards/{shard}/attempts/{fence}/run-{run}.json"


def worker_error(shard: str, fence: int, run: int) -> str:
    """Why a worker's run ended without a commit."""
    return f"shards/{shard}/attempts/{fence}/error-{run}.json"


def merged_folder(version: str) -> str:
    return f"merged/{version}"


def merged_part(version: str, number: int, group: str | None = None) -> str:
    """A file of a version, or of the group whose folder is `group`."""
    folder = merged_folder(version) if group is None else f"{merged_folder(version)}/{group}"
    return f"{folder}/part-{number:05d}.parquet"


def merged_failures(version: str) -> str:
    return f"merged/{version}/failures.parquet"


def merged_manifest(version: str) -> str:
    return f"merged/{version}/manifest.json"


def merged_metadata(version: str) -> str:
    return f"merged/{version}/metadata.json"
