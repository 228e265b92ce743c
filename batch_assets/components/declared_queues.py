"""Queues of requests that YAML files declare: those that can be loaded, and those that cannot, each with its reason.

Pipelines, and files that cannot be read at all, are in `declared.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pydantic

from batch_assets.components.attributes import QUEUE_TYPE, declaring_files, folder_name
from batch_assets.components.declared import validating
from batch_assets.components.documents import read_documents
from batch_assets.components.templates import render
from batch_assets.dispatch.queues.urls import check_urls
from batch_assets.errors import ConfigurationError
from batch_assets.orchestration.broken import build_broken_queue
from batch_assets.orchestration.request_queue import build_queue_definitions
from batch_assets.plain_text import plain_logger, quoted
from batch_assets.settings.pipeline import describe_errors
from batch_assets.settings.request_queue import RequestQueueSettings

logger = plain_logger(__name__)


@dataclass(frozen=True)
class DeclaredQueue:
    """A queue with its settings, or the reason why it has none. `place` tells it from all others."""

    name: str
    place: str
    settings: RequestQueueSettings | None = None
    reason: str = ""


def load_queues(folder: Path) -> Iterator[DeclaredQueue]:
    """Every queue that is declared under a defs folder."""
    for file in declaring_files(folder):
        try:
            documents = read_documents(file)
        except ConfigurationError:
            continue
        for number, document in enumerate(documents):
            if isinstance(document, Mapping) and document.get("type") == QUEUE_TYPE:
                yield read_queue(document.get("attributes"), file, f"{file.relative_to(folder)} {number}")


def read_queue(
    written: object, file: Path, place: str, context: dg.ResolutionContext | None = None
) -> DeclaredQueue:
    """The queue of a YAML file's `attributes`, named by its folder where they do not name it."""
    try:
        settings = _parse(written, file, context or dg.ResolutionContext.default())
    except ConfigurationError as error:
        return DeclaredQueue(folder_name(file), place, reason=str(error))
    return DeclaredQueue(settings.name, place, settings)


def _parse(written: object, file: Path, context: dg.ResolutionContext) -> RequestQueueSettings:
    if not isinstance(written, Mapping):
        raise ConfigurationError(f"{file}: attributes: {quoted(written)}: should be the fields of a queue")
    rendered = {str(field): render(value, context, f"{file}: {field}") for field, value in written.items()}
    try:
        settings = RequestQueueSettings.model_validate(
            {**rendered, "name": rendered.get("name") or folder_name(file)}
        )
    except pydantic.ValidationError as error:
        raise ConfigurationError(f"{file}: {describe_errors(error, RequestQueueSettings)}") from None
    try:
        check_urls(settings.url, settings.results)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None
    return settings


def queue_definitions(queue: DeclaredQueue, queues: Sequence[DeclaredQueue]) -> dg.Definitions:
    """What Dagster is told of one of these queues; of those that have one name, none is loaded.

    Raises ConfigurationError for `dg check`.
    """
    reason, shown = queue.reason, queue.name
    namesakes = [other for other in queues if other.name == queue.name and other.place != queue.place]
    if queue.settings is not None and any(other.settings is not None for other in namesakes):
        places = ", ".join(sorted({queue.place, *(other.place for other in namesakes)}))
        reason = f"name: {queue.name!r}: several queues are called so ({places}); name all but one otherwise"
    if queue.settings is not None and not reason:
        return build_queue_definitions(queue.settings)
    if validating():
        raise ConfigurationError(reason)
    logger.error("left out: %s", reason)
    # Dagster takes a key once.
    return build_broken_queue(f"_{queue.place}" if namesakes else shown, reason)
