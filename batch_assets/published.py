"""What a pipeline has published, for whoever uses the vectors: behind `batch_assets.load`.

A version is read by its manifest, through the project's own storage, and stays the same however
often the pipeline publishes meanwhile. How versions are made and published is `merge/`'s business.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batch_assets.embeddings.parquet_files import iter_vectors
from batch_assets.embeddings.schema import GENERATE, RESPONSE
from batch_assets.errors import AccountingError, ConfigurationError, NotReady
from batch_assets.home import ledger_url
from batch_assets.ledger.known_roots import known_roots
from batch_assets.ledger.urls import is_there, without_password
from batch_assets.merge.base import Manifest, Part, read_manifest
from batch_assets.merge.publishing import is_version, open_current, versions_since
from batch_assets.merge.reading import open_part, rows_schema
from batch_assets.paths import merged_manifest
from batch_assets.storage import Storage, join_uri, open_storage
from batch_assets.storage.threads import map_in_order, threads_for

if TYPE_CHECKING:
    import polars as pl

VERSIONS_NAMED = 10


@dataclass(frozen=True, repr=False)
class Published:
    """One version of a pipeline's output, pinned: all its reads agree, whatever is published meanwhile.

    Every read raises AccountingError where a file is gone, is no whole Parquet file, or has other columns or
    another number of rows than the manifest says. Values are not compared with anything: a changed number passes.
    `batch-assets verify` compares every byte with its digest.
    """

    _storage: Storage
    _manifest: Manifest

    def __repr__(self) -> str:
        return f"Published(root={self.root!r}, version={self.version!r}, rows={self.rows})"

    @property
    def root(self) -> str:
        """The output root's URI."""
        return self._storage.uri

    @property
    def version(self) -> str:
        """Its name, by which it can be loaded again."""
        return self._manifest.version

    @property
    def rows(self) -> int:
        """How many records it has."""
        return self._manifest.rows

    @property
    def dimensions(self) -> int:
        """How long each vector is; 0 where the task is `generate`."""
        return self._manifest.dimensions

    @property
    def uri(self) -> str:
        """The folder of its rows. In older versions `failures.parquet` lies in it, too: take `files` there."""
        return join_uri(self.root, self._manifest.data_folder)

    @property
    def files(self) -> list[str]:
        """The URIs of the Parquet files that hold its rows, in order."""
        return [join_uri(self.root, self._manifest.path(part)) for part in self._manifest.parts]

    def to_polars(self) -> "pl.DataFrame":
        """All rows and columns. The vectors are an Array column, of which `.to_numpy()` makes a matrix."""
        import polars as pl

        # Not one chunk for all files: that would be a second copy.
        return pl.DataFrame(pl.from_arrow(self.to_arrow(), rechunk=False))

    def to_arrow(self) -> pa.Table:
        """All rows and columns, in the manifest's order; a chunk or more for each file."""
        tables = map_in_order(self._read, self._manifest.parts, threads_for(self._storage))
        return pa.concat_tables([rows_schema(self._manifest).empty_table(), *tables])

    def to_numpy(self) -> npt.NDArray[Any]:
        """The vectors (rows, dimensions), float32 or float16 as they are stored, in the order of the rows.

        Raises ConfigurationError where the task is `generate`: there are none.
        """
        manifest = self._manifest
        if manifest.task == GENERATE:
            raise ConfigurationError(
                f"{self.version} under {self.root} has answers in place of vectors, so there is no matrix of them; "
                f"read its column `{RESPONSE}` with to_polars() or to_arrow()"
            )
        parts = manifest.parts
        ends = list(itertools.accumulate((part.rows for part in parts), initial=0))
        matrix = np.empty((ends[-1], manifest.dimensions), dtype=manifest.vector_dtype)

        def fill(item: tuple[int, Part]) -> None:
            first, part = item
            with self._open(part) as file:
                for vectors in iter_vectors(file):
                    matrix[first : first + len(vectors)] = vectors
                    first += len(vectors)

        for _ in map_in_order(fill, zip(ends, parts, strict=False), threads_for(self._storage)):
            pass
        return matrix

    def _read(self, part: Part) -> pa.Table:
        with self._open(part) as file:
            table = file.read(use_threads=False)
            table.validate(full=True)  # texts are UTF-8, which readers of Arrow take for granted
        return table

    @contextlib.contextmanager
    def _open(self, part: Part) -> Iterator[pq.ParquetFile]:
        try:
            with open_part(self._storage, self._manifest, part) as file:
                yield file
        except (AccountingError, FileNotFoundError):
            path = self._manifest.path(part)
            if self._storage.info(path) is not None:
                raise
            raise AccountingError(
                f"{join_uri(self.root, path)}: is gone, though {self.version} was loaded with it; a pipeline's "
                "retention removes versions that others have replaced: call batch_assets.load again, or name "
                "another version"
            ) from None


def load_published(root_or_name: str | os.PathLike[str], version: str | None = None) -> Published:
    """The version `version`, by default the published one, of an output root or of a pipeline that the ledger knows.

    Raises ConfigurationError for a pipeline or version that is not there, NotReady where nothing is
    published yet, AccountingError where the pointer or manifest is damaged.
    """
    storage = open_storage(_root_of(root_or_name))
    if version is not None:
        manifest = read_manifest(storage, version) if is_version(version) else None
        if manifest is None:
            raise ConfigurationError(
                f"there is no version {version!r} under {storage.uri} ({_versions(storage)}); "
                "leave the version out for the one that is published"
            )
        return Published(storage, manifest)
    manifest = open_current(storage)
    if manifest is None:
        raise NotReady(
            f"nothing is published under {storage.uri} yet; run its pipeline first, or name another root"
        )
    return Published(storage, manifest)


def _versions(storage: Storage) -> str:
    """Which finished versions there are, for a sentence; the newest ones where they are many."""
    found = [name for name, files in versions_since(storage, None).items() if merged_manifest(name) in files]
    if not found:
        return "there is none at all"
    left_out = f"{len(found) - VERSIONS_NAMED} older ones, " if len(found) > VERSIONS_NAMED else ""
    return f"there are {left_out}{', '.join(found[-VERSIONS_NAMED:])}"


def _root_of(root_or_name: str | os.PathLike[str]) -> str:
    """The output root that is meant. Raises ConfigurationError for the name of a pipeline that is not known."""
    text = os.fspath(root_or_name)
    if not isinstance(root_or_name, str) or "/" in text or os.path.isdir(text):
        return text
    url = ledger_url()
    roots = known_roots(url) if is_there(url) else {}
    if text not in roots:
        known = f"it knows {', '.join(roots)}" if roots else "it knows none"
        raise ConfigurationError(
            f"no pipeline {text!r} is known to the ledger {without_password(url)} ({known}); give its output root, a "
            "URI or a path with a slash, or set DAGSTER_HOME or BATCH_ASSETS_LEDGER_URL to where it runs"
        )
    return roots[text]
