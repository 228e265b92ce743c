"""Batch Assets: verified embeddings for very many records, as Dagster assets.

Imported with every part of the package, so nothing is imported here before it is called.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from batch_assets.published import Published

__all__ = ["load"]


def load(root_or_name: "str | os.PathLike[str]", version: str | None = None) -> "Published":
    """What a pipeline has published: `.to_polars()`, `.to_arrow()`, `.to_numpy()`, or its files by `.uri`.

    `root_or_name` is an output root (a URI, a path with a slash, or a folder that exists), or the name
    of a pipeline that this machine's ledger knows. `version` names one of its versions; by default
    it is the one published now, and what is returned stays that one.
    """
    from batch_assets.published import load_published

    return load_published(root_or_name, version)
