"""`batch-assets search`: the published records nearest to a text."""

from typing import Annotated

import typer
from rich.table import Table

from batch_assets.cli import options
from batch_assets.cli.console import open_ledger, out
from batch_assets.cli.target import find_pipeline
from batch_assets.executors.gpu import GpuMachine
from batch_assets.merge.search import Hit
from batch_assets.merge.search import search as search_root
from batch_assets.storage import open_storage

SHOWN_CHARACTERS = 100


def search(
    pipeline: options.Target,
    text: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", "--top", min=1, help="How many records.")] = 10,
    defs: options.Defs = None,
) -> None:
    """Show the published records whose vectors are nearest to that of a text."""
    ledger = open_ledger()
    settings = find_pipeline(pipeline, ledger, defs)
    vector = GpuMachine().embed_query(settings, text)
    hits = search_root(open_storage(settings.output.root), vector, k)
    table = Table("score", "record_id", "record", box=None, pad_edge=False)
    for hit in hits:
        table.add_row(f"{hit.score:.3f}", hit.record_id, _excerpt(hit))
    out.print(table)


def _excerpt(hit: Hit) -> str:
    """The longest text among the record's columns, on one line."""
    texts = [value for value in hit.columns.values() if isinstance(value, str)]
    line = " ".join(max(texts, key=len, default="").split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"
