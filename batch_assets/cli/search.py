"""`batch-assets search`: the published records nearest to a text, or to an image."""

import os
import re
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from batch_assets.cli import options
from batch_assets.cli.console import errors, look_at_ledger, out, warn
from batch_assets.cli.target import find_pipeline
from batch_assets.encoders.weights import is_user_model
from batch_assets.errors import ConfigurationError
from batch_assets.executors.registry import ExecutorHost, create_host
from batch_assets.merge.search import Hit, open_published
from batch_assets.merge.search import search as search_root
from batch_assets.plain_text import plain_text
from batch_assets.settings.in_place import GpuExecutorSettings
from batch_assets.settings.permissions import Permissions
from batch_assets.settings.pipeline import PipelineSettings
from batch_assets.storage import open_storage
from batch_assets.worker.fetching import fetch
from batch_assets.worker.not_fetched import NotFetched

PLACE = re.compile(r"(https?|s3|gs|az|file)://", re.IGNORECASE)


def search(
    pipeline: options.Target,
    query: Annotated[
        str, typer.Argument(help="What to look for: a text; among images also an image's file or URL.")
    ],
    k: Annotated[int, typer.Option("-k", "--top", min=1, help="How many records.")] = 10,
    prompt: Annotated[
        str | None, typer.Option(help="Text put before the query; by default the model's own for queries.")
    ] = None,
    defs: options.Defs = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_private_addresses: options.AllowPrivateAddresses = False,
) -> None:
    """Show the published records whose vectors are nearest to that of a text, or of an image."""
    ledger = look_at_ledger()
    settings = find_pipeline(pipeline, ledger, defs, Permissions(trust_remote_code, allow_private_addresses))
    storage = open_storage(settings.output.root)
    # Both before the model is loaded, which takes a while.
    manifest = open_published(storage)
    local = _on_the_cpu(settings)
    host = create_host(local.executor.type)
    if manifest.fingerprint != host.executor(settings).fingerprint():
        warn(
            f"note: {manifest.version} was embedded with another model or setting than the pipeline has now; "
            "its scores mean little until `batch-assets run` has embedded it again"
        )
    hits = search_root(storage, _embed(host, local, query, prompt), k)
    describe = _columns if settings.source.images else _excerpt
    # Made plain before it is cut to its width, which only then is the width that is shown.
    told = [(plain_text(hit.record_id), plain_text(describe(hit, settings)), hit.score) for hit in hits]
    width = min(30, max((len(record_id) for record_id, _, _ in told), default=0))
    for record_id, text, score in told:
        line = f"{score:.3f}  {_short(record_id, width)}  {text}"
        out.print(_short(line, out.width).rstrip(), no_wrap=True)


def _embed(
    host: ExecutorHost, settings: PipelineSettings, query: str, prompt: str | None
) -> npt.NDArray[np.float32]:
    """The query's vector: of a text, or where records are images and it names a file or URL, of that image."""
    is_file = os.path.isfile(query)  # of a long text Path.is_file would raise
    if not settings.source.images or not (is_file or PLACE.match(query)):
        settings = _with_prompt(settings, prompt)
        _note_prompt(settings)
        # Where the locale is not UTF-8, Python has left undecoded what is none of its characters.
        return host.embed_query(settings, os.fsencode(query).decode("utf-8", "replace"))
    if prompt is not None:
        raise ConfigurationError(f"--prompt {prompt!r}: goes before a text, and {query!r:.100} is an image")
    location = os.path.abspath(query) if is_file else query
    try:
        content = fetch(
            location,
            most_bytes=settings.shards.max_record_bytes,
            allow_private=settings.source.allow_private_addresses,
        )
    except NotFetched as error:
        raise ConfigurationError(f"the image to look for: {error}; name a file, or an image's URL") from None
    return host.embed_query_image(settings, content)


def _with_prompt(settings: PipelineSettings, prompt: str | None) -> PipelineSettings:
    """The pipeline with what the command line puts before the query, where it says so."""
    if prompt is None:
        return settings
    return settings.model_copy(update={"model": settings.model.model_copy(update={"query_prompt": prompt})})


def _note_prompt(settings: PipelineSettings) -> None:
    """Say that a prompt that a person chose for the records is not put before the query."""
    model = settings.model
    own = settings.source.images or is_user_model(
        model
    )  # of which the first has no prompt, the second one for both
    if model.prompt and model.query_prompt is None and not own:
        errors.print(
            f"note: model.prompt, {model.prompt!r}, is put before records and not before what they are searched by, "
            "which gets the model's own for queries, if it has one; --prompt or model.query_prompt names another",
            markup=False,
            soft_wrap=True,
        )


def _on_the_cpu(settings: PipelineSettings) -> PipelineSettings:
    """One query needs no GPU, which a run may have for itself."""
    if not isinstance(settings.executor, GpuExecutorSettings):
        return settings
    return settings.model_copy(update={"executor": settings.executor.model_copy(update={"device": "cpu"})})


def _short(text: str, width: int) -> str:
    """`text` in exactly `width` characters."""
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def _excerpt(hit: Hit, settings: PipelineSettings) -> str:
    """The record's text on one line; the longest of its columns where the text does not pass through."""
    texts = [value for value in hit.columns.values() if isinstance(value, str)]
    text_column = settings.source.text_columns[0]
    return " ".join(str(hit.columns.get(text_column) or max(texts, key=len, default="")).split())


def _columns(hit: Hit, settings: PipelineSettings) -> str:
    """What tells an image from others: its key, its caption, and where it came from."""
    caption = settings.source.text_columns[0]
    found = [hit.columns.get(name) for name in ("key", caption, settings.source.image_column or "url", "url")]
    named = [" ".join(value.split()) for value in found if isinstance(value, str) and value]
    if not named:
        named = [f"{hit.columns['source_file']}:{hit.columns['source_row']}"]
    return "  ".join(value for value in dict.fromkeys(named) if value != hit.record_id)
