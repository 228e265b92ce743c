"""A planned source embedded by no model and merged: what other tools then find."""

from pathlib import Path

import numpy as np

from batch_assets.embeddings.marker import commit_marker
from batch_assets.embeddings.outcomes import Outcomes
from batch_assets.embeddings.shard_writer import ShardWriter
from batch_assets.merge.checks import check_accounting
from batch_assets.merge.parquet import merge
from batch_assets_tests.embeddings.builders import DIMENSIONS, marker_of, unit_vectors
from batch_assets_tests.sharding.planning import Planned

FINGERPRINT = "f" * 16


def published(planned: Planned) -> Path:
    """The one Parquet file of the merged version."""
    for shard in planned.shards:
        writer = ShardWriter(planned.root, shard.key, 1, planned.summary.columns, "float32")
        for records in planned.read(shard):
            rows = np.arange(len(records))
            counts = np.ones(len(records), dtype=np.int32)
            writer.write(Outcomes(records, rows, unit_vectors(records.ordinals), counts, []))
        marker = marker_of(writer.close(DIMENSIONS), shard.key, 1, shard.records, FINGERPRINT, None)
        assert commit_marker(planned.root, marker, None)
    shards = [(shard.key, shard.records) for shard in planned.shards]
    manifest = merge(planned.root, shards, FINGERPRINT).manifest
    assert check_accounting(planned.root, manifest).passed
    (part,) = manifest.parts
    return Path(planned.root.uri) / manifest.path(part)
