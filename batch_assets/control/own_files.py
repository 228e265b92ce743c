"""Whether a file that is left over is this pipeline's own: the last look before it may be deleted.

A name alone proves nothing, since anybody can give a file any name. That a file is no longer needed
is found in `leftovers.py`.
"""

import os
import re

import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets import paths
from batch_assets.control.retention import Leftover
from batch_assets.embeddings.schema import LEADING
from batch_assets.storage import Storage, is_local

_DATA = re.compile(r"shards/[^/]+/(?:embeddings|failures)-[^/]+")
_ROWS = re.compile(r"shards/([^/]+)/attempts/(\d+)/rows\.parquet")
_OF_JOB = re.compile(rf"jobs/({paths.SHARD_KEY})/(\d+)/(?:requests|results)[^/]*/.+")


class OwnFiles:
    """Looks at files under the root, or the staging area, of one pipeline. Descriptions are looked for once each."""

    def __init__(self, root: Storage) -> None:
        self._root = root
        self._there: dict[str, bool] = {}

    def has_written(self, found: Leftover) -> bool:
        """Whether the file has a name of ours, lies where its name says, and something says that we wrote it.

        Data files have our columns; rows that were kept, and requests and results, have a description
        beside them. Other files have only their names, under the key of a shard of this root.
        """
        path = found.path
        if not paths.is_own_name(path) or not _is_reached_directly(found.storage, path):
            return False
        if _DATA.fullmatch(path):
            return _is_data(found.storage, path)
        if rows := _ROWS.fullmatch(path):
            return self._is_there(paths.attempt_marker(rows[1], int(rows[2])))
        if job := _OF_JOB.fullmatch(path):
            return self._is_there(paths.job_description(job[1], int(job[2])))
        return True

    def _is_there(self, path: str) -> bool:
        if path not in self._there:
            self._there[path] = self._root.info(path) is not None
        return self._there[path]


def _is_reached_directly(storage: Storage, path: str) -> bool:
    """Whether no symbolic link leads to the file: what is behind one is somebody else's."""
    if not is_local(storage.uri):
        return True
    return os.path.realpath(f"{storage.uri}/{path}") == f"{os.path.realpath(storage.uri)}/{path}"


def _is_data(storage: Storage, path: str) -> bool:
    try:
        with storage.open_input(path) as file:
            names = pq.read_schema(file).names
    except (pa.ArrowException, OSError):
        return False
    return tuple(names[: len(LEADING)]) == LEADING
