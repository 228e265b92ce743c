"""Whether a merged version's vectors are what the model's own library makes of the same records.

A sample of records is read again from the source and embedded by `encoders/reference.py`. A record
that is no longer to be had (an image's URL that is gone, a file that has changed) is no fault of its
vector: it is left out of the sample.
"""

import time

import numpy as np
import numpy.typing as npt

from batch_assets.control.merging import CheckedMerge
from batch_assets.control.pipeline import Pipeline
from batch_assets.control.published_rows import published_files
from batch_assets.embeddings.marker import read_marker
from batch_assets.embeddings.parquet_files import open_parquet
from batch_assets.embeddings.schema import EMBEDDING
from batch_assets.encoders.base import ImageItem
from batch_assets.encoders.image_files import BadImage, open_image, set_up
from batch_assets.encoders.reference import reference_image_vectors, reference_vectors
from batch_assets.encoders.weights import is_user_model
from batch_assets.errors import ModelError, NotReady, SourceError, StorageError
from batch_assets.merge.base import Manifest
from batch_assets.merge.parity import ParityOutcome, read_parity, write_parity
from batch_assets.settings.model import ModelSettings
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.sharding.reading import read_rows
from batch_assets.worker.fetching import Fetcher, Fetching
from batch_assets.worker.not_fetched import NotFetched

SHARDS_SAMPLED, RECORDS_PER_SHARD, SAMPLED_FROM = 8, 8, 2048
FETCH_SECONDS = 60.0
"""No fetch of the sample's images begins later."""
LEAST_COSINE_FLOAT32, LEAST_COSINE_REDUCED = 0.99999, 0.9995
"""A user's own model is held to the second one: in what precision it computes is not known. So are images, of
which large JPEGs are decoded at a reduced scale (see `encoders/image_files.py`)."""


def check_parity(pipeline: Pipeline, manifest: Manifest, *, anew: bool = False) -> ParityOutcome:
    """Compare a sample of a merged version, published or not, and keep what was found with the version.

    A version that has passed is not compared again, unless `anew`. One that has not is: what kept it
    from passing, such as a library that was missing, may be mended since. What cannot be compared
    has not passed, but takes no pass back. Raises StorageError only: where publishing waits for a store
    that may answer another time, and where what was found cannot be kept.
    """
    found = read_parity(pipeline.storage, manifest.version)
    if found is not None and found.passed and not anew:
        return found
    try:
        outcome = measure_parity(pipeline, manifest)
    except Exception as error:  # a model's own code may raise anything
        if isinstance(error, StorageError) and pipeline.settings.parity_mode == "block":
            raise StorageError(
                f"parity of {manifest.version} cannot be checked: {error}; run again"
            ) from error
        kind = "" if isinstance(error, NotReady) else f"{type(error).__name__}: "
        outcome = ParityOutcome(False, f"could not be checked: {kind}{' '.join(str(error).split())}")
    if outcome.compared or found is None or not found.passed:
        write_parity(pipeline.storage, manifest.version, outcome)
    return outcome


def refusal(pipeline: Pipeline, merged: CheckedMerge, outcome: ParityOutcome) -> str | None:
    """Why a merged version may not be published for what was found; None where it may.

    A version that is published already, by an earlier release or while nothing was compared, is
    refused only for what was found, not because it cannot be compared any more.
    """
    if outcome.passed or pipeline.settings.parity_mode != "block":
        return None
    version = merged.manifest.version
    published = merged.result.reused and merged.result.expected_current == version
    if published and not outcome.compared:
        return None
    fate = "stays published, as it was before" if published else "is not published"
    return (
        f"{version} {fate}: {outcome.sentence}. What may be the reason is in docs/operations.md, Parity. If an earlier "
        "release has embedded the records wrongly, "
        f"`batch-assets retry {pipeline.name} --recompute` embeds them again. "
        "To publish it all the same, set `parity: warn` in the pipeline's defs.yaml (`run … --save NAME` writes one), "
        "and run again"
    )


def measure_parity(pipeline: Pipeline, manifest: Manifest) -> ParityOutcome:
    """Compare a sample of a version; the same version gives the same sample.

    Raises NotReady where no record of the sample can be read again, and what loading the model raises.
    """
    step = -(-sum(shard.rows > 0 for shard in manifest.merged_shards) // SHARDS_SAMPLED) or 1
    sample = _Sample(pipeline.settings)
    dtypes = set[str]()
    for key, path in published_files(pipeline, manifest, step):
        found = read_marker(pipeline.storage, key)
        if found is not None:
            dtypes.add(found[0].dtype)
        _add(pipeline, key, path, sample)
    if not sample.items:
        raise NotReady(
            f"none of the {manifest.rows} records of {manifest.version} that were to be compared can be read again "
            f"from the source{sample.why}"
        )
    model = pipeline.settings.reference
    if model is None:
        raise NotReady("the model is not here to be compared with")
    ours, theirs = np.stack(sample.vectors), _reference(model, sample.items)
    if ours.shape != theirs.shape:
        raise ModelError(
            f"the model's own library makes vectors of {theirs.shape[1]} dimensions, and ours have {ours.shape[1]}"
        )
    cosines = _cosines(ours, theirs)
    exact = dtypes == {"float32"} and not is_user_model(model) and not pipeline.settings.source.images
    threshold = LEAST_COSINE_FLOAT32 if exact else LEAST_COSINE_REDUCED
    lowest, dtype = float(cosines.min()), ", ".join(sorted(dtypes))
    left_out = f"; {len(sample.left_out)} records of the sample cannot be read again{sample.why}"
    return ParityOutcome(
        passed=lowest >= threshold,
        message=f"lowest cosine {lowest:.6f} over {len(cosines)} records ({dtype} against float32); {threshold} is "
        f"asked for{left_out if sample.left_out else ''}",
        lowest_cosine=lowest if np.isfinite(lowest) else None,
        threshold=threshold,
        compared=len(cosines),
        dtype=dtype,
    )


class _Gone(Exception):
    """A record is not to be had as it was embedded."""


class _Sample:
    """Records with our vectors, and why each of the others is left out."""

    def __init__(self, settings: PipelineSettings) -> None:
        self.items: list[str | ImageItem] = []
        self.vectors: list[npt.NDArray[np.float32]] = []
        self.left_out: list[str] = []
        self._settings = settings
        # One for all: it leaves a host alone that does not answer.
        self._fetcher = Fetcher(Fetching.of(settings))
        self._deadline = time.monotonic() + FETCH_SECONDS
        if settings.source.images:
            set_up(settings.source.max_image_pixels)

    @property
    def why(self) -> str:
        """The first reason, to be put after a sentence."""
        return f": {self.left_out[0]}" if self.left_out else ""

    def add(self, image: bytes | str | None, text: str, vector: npt.NDArray[np.float32]) -> None:
        """Add a record as it was read again. Raises _Gone for an image that is no longer to be had."""
        item = self._image(image, text) if self._settings.source.images else text
        self.items.append(item)
        self.vectors.append(vector)

    def _image(self, image: bytes | str | None, text: str) -> ImageItem:
        try:
            content = self._fetch(image) if isinstance(image, str) else image
            if not content:
                raise _Gone("there is no image")
            open_image(content, self._settings.source.max_image_pixels)
        except NotFetched as error:
            raise _Gone(f"an image cannot be fetched: {error}") from error
        except BadImage as error:
            raise _Gone(f"an image cannot be read: {error}") from error
        return ImageItem(content, text)

    def _fetch(self, location: str) -> bytes:
        if time.monotonic() > self._deadline:
            raise _Gone(f"its images could not be fetched within {FETCH_SECONDS:g} s")
        return self._fetcher.fetch(location)


def _add(pipeline: Pipeline, key: str, path: str, sample: _Sample) -> None:
    """Add a few embedded records near the shard's beginning, evenly spread there."""
    with open_parquet(pipeline.storage, path) as file:
        columns = ["source_file", "source_row", EMBEDDING]
        batch = next(file.iter_batches(batch_size=SAMPLED_FROM, columns=columns))
    vectors = batch.column(EMBEDDING).flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
    step = -(-len(batch) // RECORDS_PER_SHARD)
    files, rows = (batch.column(name).to_pylist() for name in columns[:2])
    wanted = {(files[each], rows[each]): each for each in range(0, len(batch), step)}
    try:
        shard, summary = pipeline.plan_shards([key])[key], pipeline.summary_of(key)
        found = read_rows(pipeline.settings, shard, wanted, summary, pipeline.storage)
    except (SourceError, FileNotFoundError) as error:
        sample.left_out += [str(error)] * len(wanted)
        return
    for origin, number in wanted.items():
        try:
            if origin not in found:
                raise _Gone(f"{origin[0]}: row {origin[1]} is not there")
            sample.add(*found[origin], vectors[number].astype(np.float32))
        except _Gone as error:
            sample.left_out.append(str(error))


def _reference(model: ModelSettings, items: list[str | ImageItem]) -> npt.NDArray[np.float32]:
    """Vectors of a sample, whose records are all texts or all images."""
    images = [item for item in items if isinstance(item, ImageItem)]
    if images:
        return reference_image_vectors(model, images)
    return reference_vectors(model, [item for item in items if isinstance(item, str)])


def _cosines(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Cosines of vectors (n, dimensions) that belong together; 1 where neither has a direction."""
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.sum(a * b, axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return np.where(~a.any(axis=1) & ~b.any(axis=1), 1.0, cosines)
