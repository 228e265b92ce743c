"""The source files that have been planned: how new, touched and removed ones are told apart.

Listing a source belongs to `sources/`; what to do about a touched file, to `sharding/`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import sqlalchemy as sa

from batch_assets.errors import SourceError
from batch_assets.ledger.changing import BATCH
from batch_assets.ledger.rows import FileRow
from batch_assets.ledger.schema import files
from batch_assets.ledger.store import Store, batches, repeatable

FileState = Literal["planned", "touched", "removed"]


class Files(Store):
    """The part of the Ledger that remembers source files. Paths are relative to the source's URI."""

    @repeatable
    def add_files(self, pipeline: str, generation: int, planned: Sequence[tuple[str, int, str]]) -> None:
        """Remember files (path, size in bytes, version) as planned in `generation`; newer facts win.

        SourceError for a path that is no Unicode text: no database could keep it.
        """
        rows = {
            path: {
                "pipeline": pipeline, "path": _checked(path), "size": size, "version": version,
                "generation": generation, "state": "planned",
            }
            for path, size, version in planned
        }  # fmt: skip
        if not rows:
            return
        with self._database.write() as connection:
            for some in batches(list(rows)):
                connection.execute(
                    sa.delete(files).where(files.c.pipeline == pipeline, files.c.path.in_(some))
                )
            connection.execute(sa.insert(files), list(rows.values()))

    def files(self, pipeline: str) -> Iterator[FileRow]:
        """All files, ordered by path, a page at a time."""
        after = ""
        while True:
            page = self._page(pipeline, after)
            yield from page
            if len(page) < BATCH:
                return
            after = page[-1].path

    @repeatable
    def _page(self, pipeline: str, after: str) -> list[FileRow]:
        columns = [files.c[name] for name in FileRow.__dataclass_fields__]
        behind = (files.c.pipeline == pipeline, files.c.path > after)
        query = sa.select(*columns).where(*behind).order_by(files.c.path).limit(BATCH)
        with self._database.read() as connection:
            return [FileRow(**row) for row in connection.execute(query).mappings()]

    @repeatable
    def files_between(self, pipeline: str, after: str | None, until: str | None) -> dict[str, str]:
        """The versions as planned of the files with a path behind `after` and not behind `until`, by path.

        Files known to be removed are left out; None is no bound.
        """
        where = [files.c.pipeline == pipeline, files.c.state != "removed"]
        where += [files.c.path > after] if after is not None else []
        where += [files.c.path <= until] if until is not None else []
        query = sa.select(files.c.path, files.c.version).where(*where).order_by(files.c.path)
        with self._database.read() as connection:
            return {row.path: row.version for row in connection.execute(query)}

    @repeatable
    def file_versions(self, pipeline: str, paths: Sequence[str]) -> dict[str, str]:
        """The versions, by path, of those of `paths` that are known."""
        query = sa.select(files.c.path, files.c.version).where(files.c.pipeline == pipeline)
        found: dict[str, str] = {}
        with self._database.read() as connection:
            for some in batches(paths):
                rows = connection.execute(query.where(files.c.path.in_(some)))
                found |= {row.path: row.version for row in rows}
        return found

    @repeatable
    def set_versions(self, pipeline: str, versions: Mapping[str, str]) -> None:
        """Note which version of a file counts as planned: of another pipeline's shard, only reading tells."""
        if not versions:
            return
        named = sa.update(files).where(
            files.c.pipeline == pipeline, files.c.path == sa.bindparam("file_path")
        )
        values = [{"file_path": path, "new_version": version} for path, version in versions.items()]
        with self._database.write() as connection:
            for some in batches(values):
                new = named.values(version=sa.bindparam("new_version"), state="planned")
                connection.execute(new, list(some))

    @repeatable
    def mark_files(self, pipeline: str, paths: Sequence[str], state: FileState) -> None:
        """Note that files were touched or removed since they were planned, or are again as planned."""
        if not paths:
            return
        with self._database.write() as connection:
            for some in batches(paths):
                row = (files.c.pipeline == pipeline, files.c.path.in_(some))
                connection.execute(sa.update(files).where(*row).values(state=state))

    @repeatable
    def restore_files(self, pipeline: str, paths: Sequence[str]) -> None:
        """Note that those of `paths` that were touched are again as planned; free where none was."""
        for some in batches(paths):
            query = sa.select(files.c.path).where(
                files.c.pipeline == pipeline, files.c.path.in_(some), files.c.state == "touched"
            )
            with self._database.read() as connection:
                again = list(connection.scalars(query))
            self.mark_files(pipeline, again, "planned")


def _checked(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise SourceError(f"file {path!r}: its name is not valid UTF-8; rename it, then plan again") from None
    return path
