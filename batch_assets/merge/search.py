"""Nearest records to a vector: one pass over the published parts, a row group at a time.

Exact, without an index, in memory that does not grow with the dataset. Turning a query's
text into a vector is the encoder's business.
"""

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from batch_assets.embeddings.parquet_files import iter_vectors
from batch_assets.embeddings.schema import EMBEDDING, GENERATE, RESPONSE
from batch_assets.embeddings.validation import vector_norms
from batch_assets.errors import ConfigurationError, NotReady
from batch_assets.merge.base import Manifest, Part
from batch_assets.merge.publishing import open_current
from batch_assets.merge.reading import open_part
from batch_assets.storage import Storage, open_storage
from batch_assets.storage.threads import map_in_order

THREADS = 2


@dataclass(frozen=True)
class Hit:
    """A record near the query. `score` is the cosine; `columns` are all its others but the vector."""

    record_id: str
    score: float
    columns: dict[str, Any]


@dataclass(frozen=True, order=True)
class _Candidate:
    """A row of a part, numbered within the part."""

    score: float
    part: int
    row: int


def open_published(storage: Storage) -> Manifest:
    """The manifest of the published version.

    Raises NotReady where there is none, ConfigurationError where it holds answers in place of vectors.
    """
    manifest = open_current(storage)
    if manifest is None:
        raise NotReady(f"nothing is published under {storage.uri} yet; merge first: `batch-assets run`")
    if manifest.task == GENERATE:
        raise ConfigurationError(
            f"the pipeline of {storage.uri} generates answers: there are no vectors to search; read the column "
            f"`{RESPONSE}` of the Parquet files in {manifest.data_folder}"
        )
    return manifest


def search(root: str | Storage, query_vector: npt.ArrayLike, k: int = 10) -> list[Hit]:
    """The `k` records of the published version nearest to `query_vector` (dimensions,), best first.

    Raises NotReady where nothing is published, ConfigurationError for a vector of another dimension
    and where there are answers in place of vectors.
    """
    storage = open_storage(root) if isinstance(root, str) else root
    manifest = open_published(storage)
    query = np.asarray(query_vector, dtype=np.float32)
    if query.shape != (manifest.dimensions,):
        raise ConfigurationError(
            f"the query vector has shape {query.shape}, the vectors under {storage.uri} have "
            f"{manifest.dimensions} dimensions; embed the query with the model that embedded them"
        )
    query = query / max(float(np.linalg.norm(query)), float(np.finfo(np.float32).tiny))
    best: list[_Candidate] = []
    numbered = enumerate(manifest.parts)
    for found in map_in_order(
        lambda item: _best_of_part(storage, manifest, query, k, item), numbered, THREADS
    ):
        best = heapq.nlargest(k, best + found)
    return _load(storage, manifest, best)


def _best_of_part(
    storage: Storage, manifest: Manifest, query: npt.NDArray[np.float32], k: int, item: tuple[int, Part]
) -> list[_Candidate]:
    number, part = item
    best: list[_Candidate] = []
    first = 0
    with open_part(storage, manifest, part) as file:
        for vectors in iter_vectors(file):
            scores = vectors.astype(np.float32, copy=False) @ query
            scores /= np.maximum(vector_norms(vectors), np.finfo(np.float32).tiny)
            rows = np.argpartition(scores, -k)[-k:] if k < len(scores) else np.arange(len(scores))
            best = heapq.nlargest(
                k, best + [_Candidate(float(scores[row]), number, first + int(row)) for row in rows]
            )
            first += len(vectors)
    return best


def _load(storage: Storage, manifest: Manifest, best: list[_Candidate]) -> list[Hit]:
    """The other columns of the candidates: only the row groups that hold one are read."""
    by_part: dict[int, list[int]] = {}
    for candidate in best:
        by_part.setdefault(candidate.part, []).append(candidate.row)
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for number, rows in by_part.items():
        with open_part(storage, manifest, manifest.parts[number]) as file:
            names = [name for name in file.schema_arrow.names if name != EMBEDDING]
            first = 0
            for group in range(file.num_row_groups):
                last = first + file.metadata.row_group(group).num_rows
                if inside := [row for row in rows if first <= row < last]:
                    table = file.read_row_group(group, columns=names, use_threads=False)
                    table = table.take([row - first for row in inside])
                    table.validate(full=True)  # texts are UTF-8
                    values = table.to_pylist()
                    found |= {(number, row): one for row, one in zip(inside, values, strict=True)}
                first = last
    hits = [(found[candidate.part, candidate.row], candidate.score) for candidate in best]
    return [Hit(values.pop("record_id"), score, values) for values, score in hits]
