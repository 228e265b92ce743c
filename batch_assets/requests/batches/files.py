"""Clients' files in the database: what was uploaded, and what batches have come to.

Their bytes lie under the output root of a pipeline.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from batch_assets import paths
from batch_assets.requests.database import RequestsDatabase

INPUT, OUTPUT = "batch", "batch_output"
"""What a file is for, in OpenAI's words."""
UPLOAD_SECONDS = 3600.0
_COLUMNS = "number, id, tenant, purpose, filename, bytes, lines, sha256, root, created, expires, deleted_at"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a tenant. `root` is the URI under which it lies; times are unix seconds.

    One with a `deleted_at`, which may lie ahead, is there for nobody but the batches that still read it.
    """

    number: int
    id: str
    tenant: str
    purpose: str
    filename: str
    bytes: int
    lines: int
    sha256: str
    root: str
    created: float
    expires: float
    deleted_at: float | None = None

    @property
    def path(self) -> str:
        """Relative to its root."""
        return paths.client_file(self.id)


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that somebody is about to write."""

    id: str
    tenant: str
    purpose: str
    filename: str
    root: str

    @property
    def path(self) -> str:
        """Relative to its root."""
        return paths.client_file(self.id)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: how many bytes, lines among them, and their digest in hexadecimal digits."""

    bytes: int
    lines: int
    sha256: str


def new_file_id() -> str:
    """An id that nobody can guess."""
    return f"file-{secrets.token_hex(16)}"


class FileStore:
    """The files of all tenants in one database; threads may share it."""

    def __init__(self, database: RequestsDatabase) -> None:
        self._database = database

    def announce(self, file: NewFile) -> None:
        """Note a file before its first byte is written: one that is never made known is removed in an hour."""
        self._database.prepare()
        with self._database.write() as connection:
            now = self._database.now(connection)
            values = {name: getattr(file, name) for name in NewFile.__slots__}
            connection.execute(_ANNOUNCE, values | {"now": now, "until": now + UPLOAD_SECONDS})

    def make_known(self, file_id: str, filename: str, written: Written, keep_seconds: float) -> StoredFile:
        """An announced file is whole. It is removed when its time is up."""
        with self._database.write() as connection:
            connection.execute(_NAME, {"id": file_id, "filename": filename})
            make_known(connection, file_id, written, keep_seconds)
        found = self.find(file_id)
        assert found is not None, file_id
        return found

    def find(self, file_id: str) -> StoredFile | None:
        """The file with this id, deleted or not; None where there is none."""
        self._database.prepare()
        query = sa.text(f"SELECT {_COLUMNS} FROM requests_files WHERE id = :id")
        with self._database.read() as connection:
            row = connection.execute(query, {"id": file_id}).one_or_none()
        return None if row is None else StoredFile(*row)

    def listed(
        self, tenant: str | None, purpose: str | None, after: int | None, most: int, *, oldest_first: bool
    ) -> list[StoredFile]:
        """Files that are not deleted, of one tenant or of all, behind the one with the number `after`."""
        self._database.prepare()
        where = "" if tenant is None else " AND tenant = :tenant"
        where += "" if purpose is None else " AND purpose = :purpose"
        if after is not None:
            where += f" AND number {'>' if oldest_first else '<'} :after"
        query = sa.text(
            f"SELECT {_COLUMNS} FROM requests_files WHERE deleted_at IS NULL{where} "
            f"ORDER BY number {'ASC' if oldest_first else 'DESC'} LIMIT :most"
        )
        values = {"tenant": tenant, "purpose": purpose, "after": after, "most": most}
        with self._database.read() as connection:
            return [StoredFile(*row) for row in connection.execute(query, values)]

    def delete(self, file: StoredFile) -> None:
        """Show it to nobody any longer; its bytes go once no batch needs them."""
        update = sa.text(
            "UPDATE requests_files SET deleted_at = :now, expires = :now "
            "WHERE number = :number AND deleted_at IS NULL"
        )
        with self._database.write() as connection:
            connection.execute(update, {"number": file.number, "now": self._database.now(connection)})

    def to_remove(self, root: str, most: int) -> list[StoredFile]:
        """Deleted files under a root, and those whose time is up, that no unfinished batch reads."""
        self._database.prepare()
        with self._database.read() as connection:
            now = self._database.now(connection)
            values = {"root": root, "now": now, "most": most}
            return [StoredFile(*row) for row in connection.execute(_TO_REMOVE, values)]

    def forget(self, files: Sequence[StoredFile]) -> None:
        """Their bytes are gone."""
        if files:
            with self._database.write() as connection:
                connection.execute(
                    sa.text("DELETE FROM requests_files WHERE number = :number"),
                    [{"number": file.number} for file in files],
                )


def make_known(connection: sa.Connection, file_id: str, written: Written, keep_seconds: float) -> None:
    """The same in a transaction that does more. The time that it is kept counts from its creation, as at OpenAI."""
    connection.execute(
        _MAKE_KNOWN,
        {
            "id": file_id,
            "bytes": written.bytes,
            "lines": written.lines,
            "sha256": written.sha256,
            "seconds": keep_seconds,
        },
    )


_ANNOUNCE = sa.text(
    "INSERT INTO requests_files (id, tenant, purpose, filename, bytes, lines, sha256, root, created, expires, "
    "deleted_at) VALUES (:id, :tenant, :purpose, :filename, 0, 0, '', :root, :now, :until, :until) "
    "ON CONFLICT (id) DO NOTHING"
)
_NAME = sa.text("UPDATE requests_files SET filename = :filename WHERE id = :id")
_MAKE_KNOWN = sa.text(
    "UPDATE requests_files SET bytes = :bytes, lines = :lines, sha256 = :sha256, "
    "expires = created + :seconds, deleted_at = NULL WHERE id = :id"
)
_TO_REMOVE = sa.text(
    f"SELECT {_COLUMNS} FROM requests_files WHERE root = :root AND expires < :now "
    "AND NOT EXISTS (SELECT 1 FROM requests_batches WHERE input_file = requests_files.id AND ended_at IS NULL) "
    "LIMIT :most"
)
