"""Whether a file that is left over is this pipeline's own: the last look before it may be deleted.

A name alone proves nothing, since anybody can give a file any name. That a file is no longer needed
is found in `leftovers.py`.
"""

import functools
import os
import re

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets import paths
from batch_assets.control.retention import Leftover
from batch_assets.embeddings.schema import LEADING
from batch_assets.executors.jobs import JobDescription, read_description
from batch_assets.storage import Storage, is_local

_DATA = re.compile(r"shards/[^/]+/(?:embeddings|failures)-[^/]+")
_ROWS = re.compile(r"shards/([^/]+)/attempts/(\d+)/rows\.parquet")
_OF_JOB = re.compile(rf"jobs/({paths.SHARD_KEY})/(\d+)/(?:requests|results)[^/]*/.+")


class OwnFiles:
    """Looks at files under the root, or the staging area, of one pipeline."""

    def __init__(self, root: Storage) -> None:
        self._root = root
        self._there: dict[str, bool] = {}
        # Files come shard by shard, and a root has any number of them.
        self._job = functools.lru_cache(maxsize=64)(self._read_job)

    def has_written(self, found: Leftover) -> bool:
        """Whether the file has a name of ours, lies where its name says, and something says that we wrote it.

        Data files have our columns, and rows that were kept have a description beside them. Another deployment may
        share the staging area, with the same shards and fences: of requests and results, the job's description says
        which are ours. A pool's folder is named after what is in it, and `leftover_jobs.py` asks for that pool's
        description. Other files have only their names, under the key of a shard of this root.
        """
        path = found.path
        if not paths.is_own_name(path) or not is_reached_directly(found.storage, path):
            return False
        if _DATA.fullmatch(path):
            return _is_data(found.storage, path)
        if rows := _ROWS.fullmatch(path):
            return self._is_there(paths.attempt_marker(rows[1], int(rows[2])))
        if job := _OF_JOB.fullmatch(path):
            described = self._job(job[1], int(job[2]))
            return described is not None and _is_of(described, found)
        return True

    def _read_job(self, shard: str, fence: int) -> JobDescription | None:
        """The description under this root, None also for one that cannot be read: what it is of stays."""
        try:
            return read_description(self._root, shard, fence)
        except ValueError:
            return None

    def _is_there(self, path: str) -> bool:
        if path not in self._there:
            self._there[path] = self._root.info(path) is not None
        return self._there[path]


def is_reached_directly(storage: Storage, path: str) -> bool:
    """Whether no symbolic link leads to the file: what is behind one is somebody else's."""
    if not is_local(storage.uri):
        return True
    return os.path.realpath(f"{storage.uri}/{path}") == f"{os.path.realpath(storage.uri)}/{path}"


def _is_of(job: JobDescription, found: Leftover) -> bool:
    """Whether a file of requests or results is this job's, and not that of another one with its shard and fence."""
    if not job.files:
        return False
    folder, _, name = found.path.rpartition("/")
    # SageMaker writes into the folder that is named as the requests' is; answers of single calls lie beside them.
    if folder in (job.folder, f"{job.folder}-answers", job.folder.replace("/requests-", "/results-")):
        return True
    # Bedrock writes into a folder named after its own job, and names the files after the requests.
    results = {f"{file.path.rpartition('/')[2]}.out" for file in job.files}
    if name == paths.RESULTS_MANIFEST:
        return any(found.storage.info(f"{folder}/{result}") is not None for result in results)
    return name in results


def _is_data(storage: Storage, path: str) -> bool:
    try:
        with storage.open_input(path) as file:
            names = pq.read_schema(file).names
    except (pa.ArrowException, OSError):
        return False
    return tuple(names[: len(LEADING)]) == LEADING
