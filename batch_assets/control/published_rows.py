"""Where a shard's published rows are, for those who look at some of them again: a picture, a comparison."""

from collections.abc import Iterator

from batch_assets.control.pipeline import Pipeline
from batch_assets.embeddings.marker import read_marker
from batch_assets.merge.base import Manifest


def published_files(pipeline: Pipeline, manifest: Manifest, step: int = 1) -> Iterator[tuple[str, str]]:
    """(shard, file) of every `step`th shard with rows: a file of its rows and no others, in source order.

    That is its part of the version. Where groups mix the shards' rows it is the shard's own file,
    left out where the shard was computed again since.
    """
    parts = {part.shard: manifest.path(part) for part in manifest.parts if part.shard}
    for shard in [shard for shard in manifest.merged_shards if shard.rows][::step]:
        if shard.shard in parts:
            yield shard.shard, parts[shard.shard]
            continue
        found = read_marker(pipeline.storage, shard.shard)
        if found is not None and found[0].embeddings.sha256 == shard.source_sha256:
            yield shard.shard, found[0].embeddings.path
