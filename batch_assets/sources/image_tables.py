"""Tables of a folder's images, as Hugging Face's imagefolder has them: `metadata.jsonl` or `metadata.csv`.

A row belongs to the image that its `file_name` names, relative to the table. Tables are read as they
are at the time: a plan does not fix them.
"""

import posixpath
import threading
from collections.abc import Mapping
from typing import Any

from batch_assets.errors import SourceError, UnreadableFile
from batch_assets.plain_text import plain_logger
from batch_assets.sources.base import Fault
from batch_assets.sources.delimited import delimited_rows
from batch_assets.sources.files import explained
from batch_assets.sources.json_values import parse_object
from batch_assets.sources.spool import json_line_rows
from batch_assets.storage import Storage, join_uri

logger = plain_logger(__name__)
FILE_NAME = "file_name"
_MOST_BYTES = 512 * 2**20
_ROW_BYTES = 1_000  # what Python takes for a row of some values, beside its JSON


class ImageTables:
    """The rows of tables under `storage`, each read when it is asked for the first time, by any thread."""

    def __init__(self, storage: Storage, longest: int) -> None:
        self._storage = storage
        self._longest = longest
        self._lock = threading.Lock()
        self._rows: dict[str, dict[str, Mapping[str, Any]]] = {}

    def row(self, table: str, image: str) -> Mapping[str, Any]:
        """The row of an image, empty where the table has none. Raises SourceError for a table that cannot be read."""
        with self._lock:
            if table not in self._rows:
                try:
                    self._rows[table] = self._read(table)
                except UnreadableFile as error:
                    # It belongs to a whole folder of images, none of which is at fault.
                    raise SourceError(
                        f"{error}; where it is moved away, the images are planned without it"
                    ) from error
        return self._rows[table].get(image, {})

    def _read(self, table: str) -> dict[str, Mapping[str, Any]]:
        rows: dict[str, Mapping[str, Any]] = {}
        folder, uri = posixpath.dirname(table), join_uri(self._storage.uri, table)
        reader = delimited_rows if table.endswith(".csv") else json_line_rows
        size = unusable = 0
        with explained(self._storage, table):
            for _, line in reader(self._storage.stream(table), table, self._longest):
                found = line if isinstance(line, Fault) else parse_object(line, self._longest, {line})
                name = None if isinstance(found, Fault) else found.pop(FILE_NAME, None)
                if isinstance(found, Fault) or not isinstance(name, str):
                    unusable += 1
                    continue
                size += _ROW_BYTES + 2 * len(line)
                if size > _MOST_BYTES:
                    raise SourceError(
                        f"{uri}: takes more than the {_MOST_BYTES:,} bytes that are held in memory for a table of "
                        "images; split the folder and the table, or write a .json beside each image"
                    )
                rows[posixpath.normpath(posixpath.join(folder, name))] = found
        if unusable:
            logger.warning(
                "%s: %s rows name no image by %r and are left out", uri, f"{unusable:,}", FILE_NAME
            )
        return rows
