"""`batch-assets search`: the published records nearest to a text."""

from typing import Annotated

import typer

from batch_assets.cli import options
from batch_assets.cli.console import errors, open_ledger, out
from batch_assets.cli.target import find_pipeline
from batch_assets.executors.registry import create_host
from batch_assets.merge.search import Hit, open_published
from batch_assets.merge.search import search as search_root
from batch_assets.settings import PipelineSettings
from batch_assets.storage import open_storage


def search(
    pipeline: options.Target,
    text: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", "--top", min=1, help="How many records.")] = 10,
    defs: options.Defs = None,
) -> None:
    """Show the published records whose vectors are nearest to that of a text."""
    ledger = open_ledger()
    settings = find_pipeline(pipeline, ledger, defs)
    storage = open_storage(settings.output.root)
    # Both before the model is loaded, which takes a while.
    manifest = open_published(storage)
    local = _on_the_cpu(settings)
    host = create_host(local.executor.type)
    if manifest.fingerprint != host.executor(settings).fingerprint():
        errors.print(
            f"note: {manifest.version} was embedded with another model or setting than the pipeline has now; "
            "its scores mean little until `batch-assets run` has embedded it again",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    vector = host.embed_query(local, text)
    hits = search_root(storage, vector, k)
    for hit in hits:
        line = (
            f"{hit.score:.3f}  {_short(hit.record_id, 30)}  {_excerpt(hit, settings.source.text_columns[0])}"
        )
        out.print(_short(line, out.width).rstrip(), markup=False, no_wrap=True)


def _on_the_cpu(settings: PipelineSettings) -> PipelineSettings:
    """One text needs no GPU, which a run may have for itself."""
    if not settings.executor.in_place:
        return settings
    return settings.model_copy(update={"executor": settings.executor.model_copy(update={"device": "cpu"})})


def _short(text: str, width: int) -> str:
    """`text` in exactly `width` characters."""
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def _excerpt(hit: Hit, text_column: str) -> str:
    """The record's text on one line; the longest of its columns where the text does not pass through."""
    texts = [value for value in hit.columns.values() if isinstance(value, str)]
    return " ".join(str(hit.columns.get(text_column) or max(texts, key=len, default="")).split())
