"""The project's own asset behind a pipeline: for each article the one that is nearest in meaning."""

import json
from pathlib import Path

import dagster as dg
import numpy as np

import batch_assets

NEIGHBOURS = Path(__file__).parents[3] / "data" / "neighbours.json"


@dg.asset(deps=[dg.AssetKey(["article_vectors", "merged_embeddings"])])
def neighbours() -> dg.MaterializeResult:
    """Article → its nearest neighbour, from the published vectors."""
    published = batch_assets.load("article_vectors")
    names, vectors = published.to_polars()["record_id"].to_list(), published.to_numpy()
    closeness = vectors @ vectors.T
    np.fill_diagonal(closeness, -np.inf)
    nearest = {name: names[place] for name, place in zip(names, closeness.argmax(axis=1), strict=True)}
    NEIGHBOURS.write_text(json.dumps(nearest, indent=2), encoding="utf-8")
    return dg.MaterializeResult(metadata={"version": published.version, "rows": published.rows})
