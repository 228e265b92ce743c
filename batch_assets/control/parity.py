"""Whether the published vectors are what the model's own library makes of the same records.

A sample of records is read again from the source and embedded by `encoders/reference.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batch_assets.control.pipeline import Pipeline
from batch_assets.control.published_rows import published_files
from batch_assets.embeddings.marker import read_marker
from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.embeddings.schema import EMBEDDING
from batch_assets.encoders.base import ImageItem
from batch_assets.encoders.reference import reference_image_vectors, reference_vectors
from batch_assets.encoders.weights import is_user_model
from batch_assets.errors import NotReady
from batch_assets.merge.publishing import open_current
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.reading import read_rows
from batch_assets.worker.fetching import Fetcher, Fetching
from batch_assets.worker.not_fetched import NotFetched

SHARDS_SAMPLED, RECORDS_PER_SHARD, SAMPLED_FROM = 8, 8, 2048
LEAST_COSINE_FLOAT32, LEAST_COSINE_REDUCED = 0.99999, 0.9995
"""A user's own model is held to the second one: in what precision it computes is not known."""


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
    step = -(-sum(shard.rows > 0 for shard in manifest.merged_shards) // SHARDS_SAMPLED) or 1
    pairs: list[tuple[str | ImageItem, npt.NDArray[np.float32]]] = []
    dtypes = set[str]()
    for key, path in published_files(pipeline, manifest, step):
        found = read_marker(pipeline.storage, key)
        if found is not None:
            dtypes.add(found[0].dtype)
        pairs.extend(_sample(pipeline, key, path))
    if not pairs:
        raise NotReady(
            f"parity of pipeline {pipeline.name}: none of the {manifest.rows} published records can be read "
            "again from the source, so there is nothing to compare"
        )
    expected = _reference(pipeline.settings.model, [item for item, _ in pairs])
    cosines = _cosines(np.stack([vector for _, vector in pairs]), expected)
    exact = dtypes == {"float32"} and not is_user_model(pipeline.settings.model)
    threshold = LEAST_COSINE_FLOAT32 if exact else LEAST_COSINE_REDUCED
    return Parity(float(cosines.min()), threshold, len(pairs), ", ".join(sorted(dtypes)))


def _reference(model: ModelSettings, items: list[str | ImageItem]) -> npt.NDArray[np.float32]:
    """Vectors of a sample, whose records are all texts or all images."""
    images = [item for item in items if isinstance(item, ImageItem)]
    if images:
        return reference_image_vectors(model, images)
    return reference_vectors(model, [item for item in items if isinstance(item, str)])


def _sample(
    pipeline: Pipeline, key: str, path: str
) -> Iterator[tuple[str | ImageItem, npt.NDArray[np.float32]]]:
    """(record, published vector) of a few embedded records near the shard's beginning, evenly spread there."""
    with open_parquet(pipeline.storage, path) as file:
        columns = ["source_file", "source_row", EMBEDDING]
        batch = next(file.iter_batches(batch_size=SAMPLED_FROM, columns=columns))
    vectors = batch.column(EMBEDDING).flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
    step = -(-len(batch) // RECORDS_PER_SHARD)
    files, rows = (batch.column(name).to_pylist() for name in columns[:2])
    wanted = {(files[each], rows[each]): each for each in range(0, len(batch), step)}
    shard, summary = pipeline.plan_shards([key])[key], pipeline.summary_of(key)
    found = read_rows(pipeline.settings, shard, wanted, summary, pipeline.storage)
    for origin, number in wanted.items():
        item = _item(pipeline.settings, *found[origin]) if origin in found else None
        if item is not None:
            yield item, vectors[number].astype(np.float32)


def _item(settings: PipelineSettings, image: bytes | str | None, text: str) -> str | ImageItem | None:
    """What the reference is given of a record; None of an image that is no longer to be had."""
    if not settings.source.images:
        return text
    try:
        content = Fetcher(Fetching.of(settings)).fetch(image) if isinstance(image, str) else image
    except NotFetched:
        return None
    return ImageItem(content, text) if content else None


def _cosines(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.sum(a * b, axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
