from pathlib import Path

import numpy as np
import pytest

from batch_assets.errors import ConfigurationError, NotReady
from batch_assets.merge.parquet import merge
from batch_assets.merge.publishing import publish
from batch_assets.merge.search import search
from batch_assets.storage import Storage, open_storage
from batch_assets_tests.embeddings.builders import DIMENSIONS, unit_vectors, write_shard


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def publish_shards(storage: Storage, vector_dtype: str = "float32") -> None:
    shards = []
    for number in range(3):
        key = f"g0001-{number:05d}"
        columns, values = {"title": "string"}, {"title": [f"{number}-{row}" for row in range(40)]}
        write_shard(
            storage,
            key,
            "e" * 40,
            base=40 * number,
            columns=columns,
            values=values,
            vector_dtype=vector_dtype,
        )
        shards.append((key, 40))
    result = merge(storage, shards, "f" * 16)
    assert publish(storage, result.manifest.version, None)


@pytest.mark.parametrize("vector_dtype", ["float32", "float16"])
@pytest.mark.parametrize("k", [1, 7, 500])
def test_the_nearest_records_come_first(storage: Storage, vector_dtype: str, k: int) -> None:
    publish_shards(storage, vector_dtype)
    vectors = unit_vectors(range(120))
    query = np.random.default_rng(999).standard_normal(DIMENSIONS)
    hits = search(storage.uri, 5 * query, k)
    scores = vectors @ (query / np.linalg.norm(query))
    expected = np.argsort(-scores)[:k]
    np.testing.assert_allclose([hit.score for hit in hits], scores[expected], atol=1e-3)
    np.testing.assert_allclose(
        [hit.score for hit in hits], scores[[hit.columns["source_row"] for hit in hits]], atol=1e-3
    )
    best = int(expected[0])
    assert hits[0].record_id == f"id-{best % 40}"
    assert hits[0].columns["title"] == f"{best // 40}-{best % 40}"
    assert "embedding" not in hits[0].columns


def test_a_search_needs_a_published_version_and_the_right_dimension(storage: Storage) -> None:
    with pytest.raises(NotReady, match="nothing is published"):
        search(storage, np.ones(DIMENSIONS), 3)
    publish_shards(storage)
    with pytest.raises(ConfigurationError, match="have 8 dimensions"):
        search(storage, np.ones(5), 3)
