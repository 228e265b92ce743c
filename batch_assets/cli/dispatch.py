"""`batch-assets dispatch`: the queue worker; here its flags become its settings.

What the worker does is in `batch_assets/dispatch`, what people do to its queues by hand in `dispatch_by_hand.py`.
"""

import asyncio
import re
import signal
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import pydantic
import typer
import yaml

from batch_assets.cli import exit_codes
from batch_assets.cli.console import errors
from batch_assets.cli.dispatch_by_hand import by_hand
from batch_assets.cli.dispatch_logs import log_lines
from batch_assets.cli.dispatch_status import status_shown
from batch_assets.dispatch.worker import Worker
from batch_assets.errors import ConfigurationError
from batch_assets.home import requests_url
from batch_assets.requests.database import RequestsDatabase
from batch_assets.settings.dispatch import DispatchSettings
from batch_assets.settings.pipeline import describe_errors

PUBSUB = "redis-pubsub"


def dispatch(
    endpoint: Annotated[str | None, typer.Option(help="Base URL of the model server.")] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(help="local:NAME, redis://…?queue=NAME, sqs://region/NAME; several may be named."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", help="A dispatch.yaml with these as fields, and with pools and gates."),
    ] = None,
    results: Annotated[
        str | None, typer.Option(help="Queue of the results; by default NAME-results.")
    ] = None,
    concurrency: Annotated[str | None, typer.Option(help="Calls in flight: a number, or auto.")] = None,
    lease_seconds: Annotated[float | None, typer.Option(help="How long a claim holds (30).")] = None,
    drain_timeout: Annotated[
        float | None, typer.Option(help="Seconds for calls to end after SIGTERM (20).")
    ] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT for /metrics, /healthz, /readyz.")] = None,
    results_max: Annotated[
        int | None, typer.Option(help="Unread results at which claims stop (100000).")
    ] = None,
    request_timeout: Annotated[
        float | None, typer.Option(help="Seconds after which a call is given up (300).")
    ] = None,
    request_merge_policy: Annotated[
        str | None, typer.Option(help="random-robin, weighted, tier-priority or earliest-deadline.")
    ] = None,
    inference_objective: Annotated[
        str | None,
        typer.Option(
            "--inference-objective", "--inferenceObjective", help="Sent as x-gateway-inference-objective."
        ),
    ] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Variable that holds the server's API key.")] = None,
    message_queue_impl: Annotated[
        str | None, typer.Option(help="redis-pubsub: channels, named by the four flags below.")
    ] = None,
    redis_url: Annotated[
        str, typer.Option("--redis.url", help="Redis for redis-pubsub.")
    ] = "redis://localhost:6379",
    redis_request: Annotated[
        str, typer.Option("--redis.request-queue-name", help="Channel of the requests.")
    ] = "batch-queue",
    redis_retry: Annotated[
        str, typer.Option("--redis.retry-queue-name", help="Sorted set of what is under way.")
    ] = "batch-sortedset-retry",
    redis_result: Annotated[
        str, typer.Option("--redis.result-queue-name", help="Channel of the results.")
    ] = "batch-queue-result",
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when the queues are empty.")
    ] = False,
    put: Annotated[
        Path | None, typer.Option(help="Put the lines of this file into the queue, and end.")
    ] = None,
    get: Annotated[
        int | None, typer.Option(min=0, help="Print results as they come; with a number end after so many.")
    ] = None,
    cancel: Annotated[str | None, typer.Option(help="Cancel the message of this id, and end.")] = None,
) -> None:
    """Send a queue's messages to a model server, in between its other traffic. Runs until SIGTERM or Ctrl-C."""
    queues: list[str | dict[str, Any]] = list(queue or [])
    if message_queue_impl is not None:
        queues += _channels(message_queue_impl, redis_url, redis_request, redis_retry, redis_result)
    given = {
        "endpoint": endpoint, "queues": queues or None, "results": results, "lease_seconds": lease_seconds,
        "concurrency": _number_or_text(concurrency), "drain_timeout": drain_timeout, "listen": listen,
        "results_max": results_max, "request_timeout": request_timeout,
        "request_merge_policy": request_merge_policy, "inference_objective": inference_objective,
        "api_key_env": api_key_env,
    }  # fmt: skip
    acts = [each is not None for each in (put, get, cancel)]
    if sum(acts) > 1:
        raise ConfigurationError("--put, --get and --cancel do one thing each; name one of them")
    settings = _settings(file, given, needs_endpoint=not any(acts))
    if any(acts):
        by_hand(settings, open_database, put, get, cancel)
        return
    with log_lines():
        stored = asyncio.run(_work(settings, until_empty=until_empty))
    raise typer.Exit(exit_codes.PUBLISHED if stored else exit_codes.NOTHING_PUBLISHED)


def _channels(kind: str, url: str, request: str, retry: str, result: str) -> list[str | dict[str, Any]]:
    if kind != PUBSUB:
        raise ConfigurationError(
            f"--message-queue-impl {kind}: only {PUBSUB} is known; name others by --queue"
        )
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss"):
        raise ConfigurationError("--redis.url: write redis://host:port or rediss://host:port")
    base = f"{parts.scheme}+pubsub://{parts.netloc}{parts.path}"
    return [
        {
            "url": f"{base}?channel={quote(request, safe='')}&retry={quote(retry, safe='')}",
            "results": f"{base}?channel={quote(result, safe='')}",
        }
    ]


def _number_or_text(value: str | None) -> int | str | None:
    return int(value) if value is not None and value.isdigit() else value


def _settings(file: Path | None, given: dict[str, Any], *, needs_endpoint: bool) -> DispatchSettings:
    fields: dict[str, Any] = {}
    if file is not None:
        try:
            read: Any = yaml.safe_load(file.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigurationError(f"{file}: {error}") from error
        if not isinstance(read, dict):
            raise ConfigurationError(f"{file}: write fields such as endpoint and queues")
        fields.update(read)  # pyright: ignore
    given = {name: value for name, value in given.items() if value is not None}
    if "queues" in given:
        fields.pop("queue", None)
    fields.update(given)
    if not needs_endpoint:
        fields.setdefault("endpoint", "http://127.0.0.1")
    try:
        return DispatchSettings.model_validate(fields)
    except pydantic.ValidationError as error:
        # No password is shown.
        told = re.sub(r"//[^/\s]*@", "//…@", describe_errors(error, DispatchSettings))
        raise ConfigurationError(f"{file or 'dispatch'}: {told}") from None


def open_database() -> RequestsDatabase:
    """The deployment's database of requests and messages."""
    return RequestsDatabase(requests_url())


async def _work(settings: DispatchSettings, *, until_empty: bool) -> bool:
    worker = Worker(settings, open_database)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    names = ", ".join(consumer.name for consumer in worker.consumers)

    def started() -> None:
        errors.print(
            f"dispatching {names} to {settings.endpoint or settings.pools[0].endpoint}", soft_wrap=True
        )

    with status_shown(worker):
        return await worker.run(until_empty=until_empty, started=started)
