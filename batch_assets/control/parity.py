"""Whether the published vectors are what the model's own library makes of the same records.

A sample of records is read again from the source and embedded by `encoders/reference.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch_assets.control.pipeline import Pipeline
from batch_assets.embeddings.marker import read_marker
from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.embeddings.schema import EMBEDDING
from batch_assets.encoders.reference import reference_vectors
from batch_assets.errors import NotReady
from batch_assets.merge.base import Manifest, Part
from batch_assets.merge.publishing import open_current
from batch_assets.sharding.reading import read_shard

SHARDS_SAMPLED, RECORDS_PER_SHARD = 8, 8
LEAST_COSINE_FLOAT32, LEAST_COSINE_REDUCED = 0.99999, 0.9995


@dataclass(frozen=True)
class Parity:
    """The lowest cosine between ours and the reference over `sampled` records."""

    lowest_cosine: float
    threshold: float
    sampled: int
    dtype: str

    @property
    def passed(self) -> bool:
        return self.sampled > 0 and self.lowest_cosine >= self.threshold


def measure_parity(pipeline: Pipeline) -> Parity:
    """Compare a sample of the published version; the same version gives the same sample.

    Raises NotReady where nothing is published or no published record is found in the sample of
    the source, SourceError where the source has changed.
    """
    manifest = open_current(pipeline.storage)
    if manifest is None:
        raise NotReady(
            f"pipeline {pipeline.name} has published nothing yet; materialize merged_embeddings first"
        )
    parts = [part for part in manifest.parts if part.rows]
    step = -(-len(parts) // SHARDS_SAMPLED) or 1
    pairs: list[tuple[str, npt.NDArray[np.float32]]] = []
    dtypes = set[str]()
    for part in parts[::step]:
        found = read_marker(pipeline.storage, part.shard)
        if found is not None:
            dtypes.add(found[0].dtype)
        pairs.extend(_sample(pipeline, manifest, part))
    if not pairs:
        raise NotReady(
            f"parity of pipeline {pipeline.name}: none of the {manifest.rows} published records is among the "
            "first valid ones of its sampled shards in the source, so there is nothing to compare"
        )
    expected = reference_vectors(pipeline.settings.model, [text for text, _ in pairs])
    cosines = _cosines(np.stack([vector for _, vector in pairs]), expected)
    threshold = LEAST_COSINE_FLOAT32 if dtypes == {"float32"} else LEAST_COSINE_REDUCED
    return Parity(float(cosines.min()), threshold, len(pairs), ", ".join(sorted(dtypes)))


def _sample(
    pipeline: Pipeline, manifest: Manifest, part: Part
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """(text, published vector) of a few embedded records near the shard's beginning, evenly spread there."""
    shard = pipeline.plan_shards([part.shard])[part.shard]
    texts: dict[tuple[str, int], str] = {}
    for records in read_shard(pipeline.settings, shard, pipeline.summary_of(part.shard)):
        origins = zip(records.source_files, records.source_rows, strict=True)
        texts.update(zip(origins, records.texts, strict=True))
        if texts:
            break
    with open_parquet(pipeline.storage, manifest.path(part)) as file:
        columns = ["source_file", "source_row", EMBEDDING]
        batch = next(file.iter_batches(batch_size=2048, columns=columns))
    vectors = batch.column(EMBEDDING).flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
    origins = zip(
        batch.column("source_file").to_pylist(), batch.column("source_row").to_pylist(), strict=True
    )
    rows = [(texts[origin], row) for row, origin in enumerate(origins) if origin in texts]
    step = -(-len(rows) // RECORDS_PER_SHARD) or 1
    for text, row in rows[::step]:
        yield text, vectors[row].astype(np.float32)


def _cosines(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.sum(a * b, axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
