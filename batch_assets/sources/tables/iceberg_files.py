"""An Iceberg table's files for the library pyiceberg, opened by our own storage: one way of access, one of credentials.

Paths in the metadata are absolute. They are taken relative to where the metadata say that the table
lies, so that a table that was moved or copied is read where it is now. The classes are pyiceberg's
FileIO and InputFile as far as reading metadata takes them.
"""

import pyarrow as pa

from batch_assets.errors import SourceError
from batch_assets.sources.tables.markers import EXPORT, path_inside
from batch_assets.storage import Storage, join_uri


class TableFiles:
    """The files of the table in the folder of `storage`, which is at `location` by its own metadata."""

    def __init__(self, storage: Storage, location: str) -> None:
        self._storage = storage
        self._location = _without_scheme(location) + "/"

    def relative(self, location: str) -> str:
        """The path below the table's folder. Raises SourceError for a file that lies elsewhere."""
        place = _without_scheme(location)
        if not place.startswith(self._location):
            raise SourceError(
                f"{self._storage.uri}: the table's file {location} does not lie in the table's own folder; {EXPORT}"
            )
        return path_inside(self._storage.uri, place.removeprefix(self._location))

    def new_input(self, location: str) -> "_TableFile":
        return _TableFile(self._storage, self.relative(location), location)


class _TableFile:
    def __init__(self, storage: Storage, path: str, location: str) -> None:
        self.location = location
        self._storage = storage
        self._path = path

    def __len__(self) -> int:
        info = self._storage.info(self._path)
        if info is None:
            raise FileNotFoundError(join_uri(self._storage.uri, self._path))
        return info.size

    def exists(self) -> bool:
        return self._storage.info(self._path) is not None

    def open(self, seekable: bool = True) -> pa.NativeFile:
        return pa.BufferReader(self._storage.read(self._path))


def _without_scheme(location: str) -> str:
    """The place that a location names: file:/a, file:///a and /a, s3a:// and s3:// mean the same."""
    scheme, colon, rest = location.partition(":")
    place = rest if colon and "/" not in scheme else location
    return "/" + place.strip("/")
